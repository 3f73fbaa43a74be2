/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that is special about TC ingress: an sk_buff, maybe of many segments, maybe with its data
 * in pages, its tag beside the frame and its checksum half done. The kernel's helpers know.
 */
#ifndef HOOK_TC_H
#define HOOK_TC_H

#include <linux/pkt_cls.h>

#include "packet.h"

#define HOOK      BPFW_HOOK_TC
#define HOOK_PASS TC_ACT_UNSPEC /* the next program or filter has its say */
#define HOOK_DROP TC_ACT_SHOT
typedef struct __sk_buff hook_ctx;

static __always_inline void hook_set_data(struct __sk_buff *skb, struct packet *pkt)
{
	pkt->data = (void *)(long)skb->data;
	pkt->end = (void *)(long)skb->data_end;
}

static __always_inline void hook_read(struct __sk_buff *skb, struct packet *pkt, int lane)
{
	const __u32 length = HEADERS_MAX;

	pkt->from.ifindex = skb->ifindex;
	if (skb->vlan_present) {
		pkt->from.vlan_id = skb->vlan_tci & VLAN_ID_MASK;
		pkt->from.vlan_proto = skb->vlan_proto;
	}
	hook_set_data(skb, pkt);
	if (lane == LANE_FULL && pkt->data + length > pkt->end && skb->len > pkt->end - pkt->data) {
		bpf_skb_pull_data(skb, skb->len < length ? skb->len : length);
		hook_set_data(skb, pkt);
	}
}

static __always_inline __u64 hook_frame_len(struct __sk_buff *skb)
{
	return skb->len;
}

static __always_inline __u32 hook_segment_len(struct __sk_buff *skb, const struct packet *pkt)
{
	if (skb->gso_size)
		return sizeof(struct ipv4_header) + pkt->l4_header_len + skb->gso_size;
	return pkt->ip_len;
}

/* Cut what follows the IPv4 packet, and take the old tag off; the egress device adds its own. */
static __always_inline int hook_resize(struct __sk_buff *skb, struct packet *pkt,
				       const struct bpfw_hop *hop __attribute__((unused)), int lane)
{
	/* What follows is not for its packets. */
	if (lane == LANE_EXPRESS)
		return BPFW_GO_ON;
	/* The tag lies beside the frame, except where the kernel had no reason to move it. */
	if (pkt->l2_len != sizeof(struct eth_header))
		return BPFW_PASS_TAGS;
	if (skb->len > pkt->l2_len + pkt->ip_len &&
	    (skb->gso_size || bpf_skb_change_tail(skb, pkt->l2_len + pkt->ip_len, 0)))
		return BPFW_PASS_RESIZE;
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return BPFW_PASS_RESIZE;
	return BPFW_GO_ON;
}

/* Two steps: only the addresses are part of the pseudo header, which a partial checksum covers. */
static __always_inline int hook_fix_l4_checksum(struct __sk_buff *skb, struct packet *pkt,
						const struct bpfw_rewrite *rewrite)
{
	const __u32 l4 = sizeof(struct eth_header) + sizeof(struct ipv4_header);
	__u32 offset = l4 + __builtin_offsetof(struct tcp_header, check);
	__u64 flags = 0;

	if (pkt->tuple->protocol == PROTOCOL_UDP) {
		offset = l4 + __builtin_offsetof(struct udp_header, check);
		flags = BPF_F_MARK_MANGLED_0;
	}
	if ((rewrite->flags & BPFW_CONN_NAT) &&
	    bpf_l4_csum_replace(skb, offset, 0, rewrite->addr_delta, flags | BPF_F_PSEUDO_HDR))
		return BPFW_DROP_ERROR;
	if ((rewrite->flags & BPFW_CONN_PORTS) &&
	    bpf_l4_csum_replace(skb, offset, 0, rewrite->port_delta, flags))
		return BPFW_DROP_ERROR;
	hook_set_data(skb, pkt);
	pkt->l3 = pkt->data + sizeof(struct eth_header);
	/* As ip_forward: rt_tos2priority, whose table repeats each of its four classes. */
	const __u8 class = (pkt->tos >> 3) & 3;
	skb->priority = class == 0 ? 0 : class == 1 ? 2 : class == 2 ? 6 : 4;
	return BPFW_GO_ON;
}

static __always_inline int hook_write_l2(struct packet *pkt, const struct bpfw_hop *hop,
					 int lane __attribute__((unused)))
{
	if (pkt->data + sizeof(struct eth_header) > pkt->end)
		return BPFW_DROP_ERROR;
	copy_eth(pkt->data, hop->l2);
	return BPFW_GO_ON;
}

static __always_inline int hook_redirect(struct __sk_buff *skb __attribute__((unused)), __u32 port)
{
	return bpf_redirect(port, 0);
}

#endif
