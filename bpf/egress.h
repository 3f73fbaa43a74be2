/* SPDX-License-Identifier: GPL-2.0-only */
/* The way out: what the stack sends is the proof that it forwards (proof.h). */
#ifndef EGRESS_H
#define EGRESS_H

#include <linux/pkt_cls.h>

#include "counters.h"
#include "proof.h"
#include "skb.h"

/*
 * A packet that the stack sends: its tuple turned around is how answers come in, and their entry
 * tells how the packet itself came in.
 */
static __always_inline int bear_witness(struct __sk_buff *skb, const __u32 l2_len,
					const __u8 family, __u32 stamp)
{
	struct bpfw_tuple sent, tuple;
	struct packet pkt = {.tuple = &sent, .l2_len = l2_len, .family = family};
	struct bpfw_link_key from; /* the packet itself stays in registers */
	struct bpfw_generation generation;
	struct way way = {.ingress = skb->ingress_ifindex};
	__u64 now = bpf_jiffies64(), hash;
	struct bpfw_egress *egress;
	struct conn reply, conn;
	struct bpfw_link *link;
	struct snapshot snap;
	/* A proof covers both MAC addresses: here there are none. */
	struct eth_header no_macs = {};
	int verdict;

	read_generation(&generation);
	/* The machine's own packets have no ingress. Others may bring another router's stamp. */
	if (!bpf_map_lookup_elem(&egress_map, &way.ingress))
		return BPFW_NO_TESTIMONY;
	verdict = parse_skb_l2(skb, &pkt);
	if (verdict == OTHER_FAMILY)
		return OTHER_FAMILY;
	if (verdict || !parse_skb(skb, &pkt))
		return BPFW_NO_TESTIMONY;
	from = pkt.from;
	link = bpf_map_lookup_elem(&link_map, &from);
	if (!link)
		return BPFW_NO_TESTIMONY;
	egress = bpf_map_lookup_elem(&egress_map, &link->ifindex);
	if (egress)
		__sync_fetch_and_add(&egress->stamped, 1);
	ip_reverse_tuple(family, &sent, &tuple);
	hash = ip_hash(family, &tuple);
	if (!find_conn(family, &tuple, &hash, &reply) ||
	    take_snapshot(family, &tuple, &hash, reply.cell, &snap))
		return BPFW_NO_TESTIMONY;
	ip_reverse_rewritten(family, &tuple, &snap.translation, &tuple);
	hash = ip_hash(family, &tuple);
	if (!find_conn(family, &tuple, &hash, &conn) ||
	    take_snapshot(family, &tuple, &hash, conn.cell, &snap) ||
	    conn.rest->id != reply.rest->id)
		return BPFW_NO_TESTIMONY;
	way.back = *(volatile __u32 *)&conn.rest->way_back;
	if (is_paused(generation.current) ||
	    stamp != stamp_of(generation.current, conn.rest, way.back, now))
		return BPFW_STAMP_OLD;
	if (pkt.data + l2_len > pkt.end)
		return BPFW_NO_TESTIMONY;
	way.epoch = epoch_of(generation.policy, hash, now);
	way.egress = link->ifindex;
	conn.rest->proof =
		proof_of(snap.seal, conn.rest->id, &way, l2_len ? pkt.data : no_macs.h_dest);
	return BPFW_PROVEN;
}

/* The stamp is taken away, because lower devices see the packet again: the first is the L3
 * interface. */
static __always_inline __u32 take_stamp(struct __sk_buff *skb)
{
	__u32 stamp = skb->tc_index;

	if (stamp)
		skb->tc_index = 0;
	return stamp;
}

/* A program for the way out, where packets have this many bytes in front of the IP header. */
#define WAY_OUT(name, l2_len)                                                                      \
	static __attribute__((noinline)) int name##_testimony(struct __sk_buff *skb, __u32 stamp)  \
	{                                                                                          \
		return bear_witness(skb, l2_len, BPFW_FAMILY_IPV4, stamp);                         \
	}                                                                                          \
                                                                                                   \
	static __attribute__((noinline)) int name##_testimony_ipv6(struct __sk_buff *skb,          \
								   __u32 stamp)                    \
	{                                                                                          \
		return bear_witness(skb, l2_len, BPFW_FAMILY_IPV6, stamp);                         \
	}                                                                                          \
                                                                                                   \
	SEC("tc") int name(struct __sk_buff *skb)                                                  \
	{                                                                                          \
		__u32 stamp = take_stamp(skb);                                                     \
		int testimony;                                                                     \
                                                                                                   \
		if (!stamp)                                                                        \
			return TC_ACT_UNSPEC;                                                      \
		testimony = name##_testimony(skb, stamp);                                          \
		if (testimony == OTHER_FAMILY)                                                     \
			testimony = name##_testimony_ipv6(skb, stamp);                             \
		count(testimony);                                                                  \
		return TC_ACT_UNSPEC;                                                              \
	}

#endif
