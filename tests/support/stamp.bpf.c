// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes a packet look as it does at TC egress, with a stamp, and maybe a tag beside it. A test run
 * takes neither in its context.
 */
#include "go_on.h"

static long (*const bpf_skb_vlan_push)(struct __sk_buff *skb, __be16 protocol,
				       __u16 word) = (void *)BPF_FUNC_skb_vlan_push;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} stamp SEC(".maps");

/* protocol << 16 | tag word; 0: none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} tag SEC(".maps");

SEC("tc") int put_stamp(struct __sk_buff *skb)
{
	__u32 zero = 0, *stamped = bpf_map_lookup_elem(&stamp, &zero);
	__u32 *tagged = bpf_map_lookup_elem(&tag, &zero);

	if (!stamped || !tagged)
		return NOBODY_TO_CALL;
	skb->tc_index = *stamped;
	if (*tagged)
		bpf_skb_vlan_push(skb, bpf_htons(*tagged >> 16), *tagged & 0xffff);
	return go_on(skb);
}
