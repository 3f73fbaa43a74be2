/* SPDX-License-Identifier: GPL-2.0-only */
/* Cuts a frame, then goes on with the program under test: a test run takes no short frames. */
#ifndef SHRINK_H
#define SHRINK_H

#include "go_on.h"

/* How many bytes to keep. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} length SEC(".maps");

static __always_inline __u32 *length_to_keep(void)
{
	__u32 slot = 0;

	return bpf_map_lookup_elem(&length, &slot);
}

#endif
