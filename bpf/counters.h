/* SPDX-License-Identifier: GPL-2.0-only */
/* Each packet is counted once, by its verdict; those with a stamp once more, at the way out. */
#ifndef COUNTERS_H
#define COUNTERS_H

#include "maps.h"

static __always_inline void count(__u32 verdict)
{
	__u32 cpu = bpf_get_smp_processor_id();

	verdict &= BPFW_COUNTERS - 1;
	if (cpu < BPFW_COUNTING_CPUS)
		counters[cpu][verdict] += 1;
	else
		__sync_fetch_and_add(&counters[BPFW_COUNTING_CPUS][verdict], 1);
}

#endif
