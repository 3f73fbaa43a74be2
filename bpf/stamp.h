/* SPDX-License-Identifier: GPL-2.0-only */
/* The way in for the hook XDP, which has no sk_buff to put a stamp on (proof.h): TC ingress. */
#ifndef STAMP_H
#define STAMP_H

#include <linux/pkt_cls.h>

#include "proof.h"
#include "skb.h"

/*
 * Stamps packets of offloaded connections that XDP has handed up, and takes the stamp of all others
 * away: it may come from another network namespace, through a veth.
 *
 * Without an entry, this may be the connection's first packet. Rules for new connections let it
 * pass, and that proves nothing about established ones.
 */
static __attribute__((noinline)) __u32 stamp_for(struct __sk_buff *skb)
{
	struct bpfw_tuple tuple;
	struct packet pkt = {.tuple = &tuple, .l2_len = L2_ETHERNET};
	__u32 current = generation_now.current;
	struct conn conn;
	__u64 hash;

	if (is_paused(current) || !parse_skb(skb, &pkt))
		return 0;
	hash = pkt.hash; /* the packet itself stays in registers */
	if (!find_conn(&tuple, &hash, &conn))
		return 0;
	return stamp_of(current, conn.rest, conn.rest->way_back, bpf_jiffies64());
}

SEC("tc") int bpfw_stamp(struct __sk_buff *skb)
{
	skb->tc_index = stamp_for(skb);
	return TC_ACT_UNSPEC;
}

#endif
