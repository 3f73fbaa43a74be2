/* SPDX-License-Identifier: GPL-2.0-only */
/* What a prelude needs to go on with the program under test. */
#ifndef GO_ON_H
#define GO_ON_H

#include "kernel.h"

/* Answers that are no action: the test will see them. */
#define KERNEL_WOULD_NOT 98
#define NOBODY_TO_CALL   99

static long (*const bpf_tail_call)(void *ctx, void *programs,
				   __u32 index) = (void *)BPF_FUNC_tail_call;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} next SEC(".maps");

/* Comes back only if there is no such program. */
static __always_inline int go_on(void *ctx)
{
	bpf_tail_call(ctx, &next, 0);
	return NOBODY_TO_CALL;
}

char LICENSE[] SEC("license") = "GPL";

#endif
