/* SPDX-License-Identifier: GPL-2.0-only */
/* Each packet is counted once, by its verdict. */
#ifndef COUNTERS_H
#define COUNTERS_H

#include "maps.h"

static __always_inline void count(__u32 verdict)
{
	__u64 *packets = bpf_map_lookup_elem(&counter_map, &verdict);

	if (packets)
		*packets += 1;
}

#endif
