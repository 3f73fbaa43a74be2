/* SPDX-License-Identifier: GPL-2.0-only */
/* Reading an sk_buff's headers: its data may lie in pages, its VLAN tag beside the frame. */
#ifndef SKB_H
#define SKB_H

#include "conn_table.h"
#include "ip.h"
#include "packet.h"
#include "parse_l2.h"
#include "parse_l4.h"

/* Bytes that must be readable for the parsers: Ethernet, one tag, IP, TCP. */
#define HEADERS_MAX(pkt)                                                                           \
	(sizeof(struct eth_header) + sizeof(struct vlan_header) +                                  \
	 ip_segment_len(pkt, sizeof(struct tcp_header), 0))

static __always_inline void skb_set_data(struct __sk_buff *skb, struct packet *pkt)
{
	/* Clang 14 would rather remember the fields' addresses, which the verifier refuses. */
	opaque(skb);
	pkt->data = (void *)(long)skb->data;
	pkt->end = (void *)(long)skb->data_end;
}

static __always_inline void skb_read(struct __sk_buff *skb, struct packet *pkt)
{
	if (skb->vlan_present) {
		pkt->from.vlan_id = skb->vlan_tci & VLAN_VID_MASK;
		pkt->from.vlan_proto = skb->vlan_proto;
	}
	if (!pkt->l2_len)
		pkt->type = skb->protocol;
	skb_set_data(skb, pkt);
}

/* Headers that lie in pages are brought to where they can be read. */
static __always_inline void skb_open(struct __sk_buff *skb, struct packet *pkt)
{
	const __u32 length = HEADERS_MAX(pkt);

	if (pkt->data + length > pkt->end && skb->len > pkt->end - pkt->data) {
		bpf_skb_pull_data(skb, skb->len < length ? skb->len : length);
		skb_set_data(skb, pkt);
	}
}

/* As far as the IP header: go on, or OTHER_FAMILY, or why this is no packet for the fast path. */
static __always_inline int parse_skb_l2(struct __sk_buff *skb, struct packet *pkt)
{
	pkt->from.ifindex = skb->ifindex;
	skb_read(skb, pkt);
	skb_open(skb, pkt);
	return parse_l2(pkt);
}

/* Whether it is a plain packet: one that the fast path would forward. */
static __always_inline int parse_skb(struct __sk_buff *skb, struct packet *pkt)
{
	if (ip_parse(pkt, skb->len) || parse_l4(pkt))
		return 0;
	pkt->hash = ip_hash(pkt->family, pkt->tuple);
	return pkt->tuple->head.protocol != IPPROTO_TCP || is_plain_segment(pkt->tcp_flags);
}

#endif
