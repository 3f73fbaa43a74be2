/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Messages to the kernel's trace pipe. Below the log level the verifier removes the call, so
 * that a kernel without bpf_trace_printk (no CONFIG_BPF_EVENTS) can load the program.
 */
#ifndef LOG_H
#define LOG_H

#include "settings.h"

#define LOG(level, format, ...)                                                                    \
	({                                                                                         \
		if (settings.log_level >= (level)) {                                               \
			static const char text[] = "bpfw: " format;                                \
			bpf_trace_printk(text, sizeof(text), ##__VA_ARGS__);                       \
		}                                                                                  \
	})

#define LOG_INFO(...)  LOG(BPFW_LOG_INFO, __VA_ARGS__)
#define LOG_DEBUG(...) LOG(BPFW_LOG_DEBUG, __VA_ARGS__)

#endif
