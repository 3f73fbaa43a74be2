/* SPDX-License-Identifier: GPL-2.0-only */
/* Ethernet and at most one VLAN tag, or nothing. */
#ifndef PARSE_L2_H
#define PARSE_L2_H

#include "ip.h"
#include "maps.h"
#include "packet.h"

static __always_inline int is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* A tag within the frame. A hook that has taken one from the frame already sees a second. */
static __always_inline int parse_tag(struct packet *pkt, __be16 *type)
{
	struct vlan_header *tag = (void *)(pkt->data + sizeof(struct eth_header));

	if ((__u8 *)(tag + 1) > pkt->end)
		return BPFW_PASS_SHORT;
	if (pkt->from.vlan_proto)
		return BPFW_PASS_TAGS;
	pkt->from.vlan_proto = *type;
	pkt->from.vlan_id = bpf_ntohs(tag->h_vlan_TCI) & VLAN_VID_MASK;
	pkt->l2_len += sizeof(*tag);
	pkt->l3 = (__u8 *)(tag + 1);
	*type = tag->h_vlan_encapsulated_proto;
	return is_vlan(*type) ? BPFW_PASS_TAGS : BPFW_GO_ON;
}

static __always_inline int parse_l2(struct packet *pkt)
{
	struct eth_header *eth = (void *)pkt->data;
	__be16 type;
	int verdict;

	if (!pkt->l2_len) {
		pkt->l3 = pkt->data;
		return check_type(pkt, pkt->type);
	}
	if ((__u8 *)(eth + 1) > pkt->end)
		return BPFW_PASS_SHORT;
	pkt->l3 = (__u8 *)(eth + 1);
	type = eth->h_proto;
	if (is_vlan(type)) {
		verdict = parse_tag(pkt, &type);
		if (verdict)
			return verdict;
	}
	return check_type(pkt, type);
}

/*
 * Both addresses begin two bytes after a multiple of four: packets by the kernel's NET_IP_ALIGN,
 * our own by their layout. In words: the compiler would call memcmp, which BPF does not have.
 */
static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return *(const __u16 *)a == *(const __u16 *)b &&
	       *(const __u32 *)(a + 2) == *(const __u32 *)(b + 2);
}

/* Point-to-point devices bring nobody else's packets, and no MAC address. */
static __always_inline int is_sent_to(const struct packet *pkt, const __u8 *mac)
{
	return !pkt->l2_len || same_mac(pkt->data, mac);
}

/* The L3 interface that the frame belongs to, provided that the frame was sent to it. */
static __always_inline int find_link(const struct packet *pkt, struct bpfw_link **found)
{
	const struct bpfw_link_key key = pkt->from;
	struct bpfw_link *link = bpf_map_lookup_elem(&link_map, &key);

	if (!link)
		return BPFW_PASS_LINK;
	if (!is_sent_to(pkt, link->mac))
		return BPFW_PASS_MAC;
	*found = link;
	return BPFW_GO_ON;
}

#endif
