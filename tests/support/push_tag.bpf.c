/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Puts VLAN tags beside a frame, as a NIC does, then goes on with the program under test. A test
 * run takes no tags in its context. cb[] says which: protocol << 16 | tag word, the outer one last.
 */
#include "go_on.h"

static long (*const bpf_skb_vlan_push)(struct __sk_buff *skb, __be16 protocol,
				       __u16 word) = (void *)BPF_FUNC_skb_vlan_push;

SEC("tc") int push_tag(struct __sk_buff *skb)
{
	__u32 inner = skb->cb[0], outer = skb->cb[1];

	if (inner)
		bpf_skb_vlan_push(skb, bpf_htons(inner >> 16), inner & 0xffff);
	if (outer)
		bpf_skb_vlan_push(skb, bpf_htons(outer >> 16), outer & 0xffff);
	return go_on(skb);
}
