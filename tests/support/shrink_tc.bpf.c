/* SPDX-License-Identifier: GPL-2.0-only */
/* Cuts a frame, then goes on with the program under test: a test run takes no short frames. */
#include "kernel.h"

static long (*const bpf_tail_call)(void *ctx, void *programs, __u32 index) = (void *)
	BPF_FUNC_tail_call;

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PROG_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_UINT(key_size, 4);
	MAP_UINT(value_size, 4);
} next SEC(".maps");

/* How many bytes to keep. */
struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, __u32);
	MAP_TYPE(value, __u32);
} length SEC(".maps");

SEC("tc") int shrink(struct __sk_buff *skb)
{
	__u32 slot = 0, *keep = bpf_map_lookup_elem(&length, &slot);

	if (!keep || bpf_skb_change_tail(skb, *keep, 0))
		return 98; /* no action: the kernel would not */
	bpf_tail_call(skb, &next, 0);
	return 99; /* no action: the test will see it */
}

char LICENSE[] SEC("license") = "GPL";
