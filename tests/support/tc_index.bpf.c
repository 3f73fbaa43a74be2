// SPDX-License-Identifier: GPL-2.0-only
/* Somebody else who uses tc_index: sets or clears it on all packets, or counts those that have one.
 */
#include <linux/pkt_cls.h>

#include "kernel.h"

/* Packets seen; of these, packets with tc_index. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

static __u32 (*const bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;

static __always_inline void add(__u32 place)
{
	__u64 *count = bpf_map_lookup_elem(&seen, &place);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* As stamps look: the highest bit is set. */
SEC("tc") int set_index(struct __sk_buff *skb)
{
	skb->tc_index = bpf_get_prandom_u32() | 1U << 15;
	return TC_ACT_UNSPEC;
}

SEC("tc") int clear_index(struct __sk_buff *skb)
{
	skb->tc_index = 0;
	return TC_ACT_UNSPEC;
}

SEC("tc") int count_index(struct __sk_buff *skb)
{
	add(0);
	if (skb->tc_index)
		add(1);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
