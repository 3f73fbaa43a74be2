/* SPDX-License-Identifier: GPL-2.0-only */
/* The way in for the hook XDP, which has no sk_buff to put a stamp on (proof.h): TC ingress. */
#ifndef STAMP_H
#define STAMP_H

#include <linux/pkt_cls.h>

#include "proof.h"
#include "skb.h"

/*
 * Stamps packets of offloaded connections that XDP has handed up. All others lose their stamp,
 * because it may come from another network namespace, through a veth.
 *
 * Without an entry, this may be the connection's first packet. Rules for new connections let it
 * pass, and that proves nothing about established ones.
 */
static __always_inline __u32 stamp_of_family(struct __sk_buff *skb, const __u8 family)
{
	struct bpfw_tuple tuple;
	struct packet pkt = {.tuple = &tuple, .l2_len = L2_ETHERNET, .family = family};
	__u32 current = generation_now.current;
	struct conn conn;
	__u64 hash;
	int verdict;

	if (is_paused(current))
		return 0;
	verdict = parse_skb_l2(skb, &pkt);
	if (verdict == OTHER_FAMILY)
		return OTHER_FAMILY;
	if (verdict || !parse_skb(skb, &pkt))
		return 0;
	hash = pkt.hash; /* the packet itself stays in registers */
	if (!find_conn(family, &tuple, &hash, &conn))
		return 0;
	return stamp_of(current, conn.rest, conn.rest->way_back, bpf_jiffies64());
}

static __attribute__((noinline)) __u32 stamp_for_ipv4(struct __sk_buff *skb)
{
	return stamp_of_family(skb, BPFW_FAMILY_IPV4);
}

static __attribute__((noinline)) __u32 stamp_for_ipv6(struct __sk_buff *skb)
{
	return stamp_of_family(skb, BPFW_FAMILY_IPV6);
}

static __always_inline __u32 stamp_for(struct __sk_buff *skb)
{
	__u32 stamp = stamp_for_ipv4(skb);

	return stamp == OTHER_FAMILY ? stamp_for_ipv6(skb) : stamp;
}

SEC("tc") int bpfw_stamp(struct __sk_buff *skb)
{
	skb->tc_index = stamp_for(skb);
	return TC_ACT_UNSPEC;
}

#endif
