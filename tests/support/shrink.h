/* SPDX-License-Identifier: GPL-2.0-only */
/* Cuts a frame, then goes on with the program under test: a test run takes no short frames. */
#ifndef SHRINK_H
#define SHRINK_H

#include "go_on.h"

/* How many bytes to keep. */
struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} length SEC(".maps");

static __always_inline __u32 *length_to_keep(void)
{
	__u32 slot = 0;

	return bpf_map_lookup_elem(&length, &slot);
}

#endif
