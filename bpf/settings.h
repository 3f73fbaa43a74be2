/* SPDX-License-Identifier: GPL-2.0-only */
/* Read-only settings: the daemon fills them in before the load, the verifier folds them in. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include "bpfw_abi.h"
#include "kernel.h"

const volatile struct bpfw_settings settings SEC(".rodata.settings") = {
	.magic = BPFW_MAGIC,
	.abi_version = BPFW_ABI_VERSION,
	.hook = HOOK,
	.log_level = BPFW_LOG_OFF,
	.beat_limit = 0,
	.route_mark = 0,
};

#endif
