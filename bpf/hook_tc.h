/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that is special about TC ingress. An sk_buff may have many segments, its data in pages, its
 * tag beside the frame, and its checksum half done. The kernel's helpers handle that.
 */
#ifndef HOOK_TC_H
#define HOOK_TC_H

#include <linux/pkt_cls.h>

#define HOOK BPFW_HOOK_TC

#include "checksum.h"
#include "ip.h"
#include "packet.h"
#include "parse_l4.h"
#include "proof.h"
#include "skb.h"

#define HOOK_DROP TC_ACT_SHOT
/*
 * Inline, its stack and the full lane's would use up the 512 bytes that the verifier allows. Older
 * kernels count each of them in steps of 32 (check_max_stack_depth in kernel/bpf/verifier.c).
 */
#define HOOK_EXPRESS __attribute__((noinline))
typedef struct __sk_buff hook_ctx;

/* The sysctl net.ipv4.ip_forward_update_priority. Written by the daemon. */
volatile __u32 update_priority SEC(".data.priority") = 1;

/* At TC, packets do not depend on the driver. */
static __always_inline void hook_note_seen(struct __sk_buff *skb __attribute__((unused)),
					   __u64 now __attribute__((unused)))
{
}

/* IPv6's express lane need not wait for IPv4's. It looks at the packet's own type, too. */
static __always_inline int hook_is_ipv6(struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IPV6);
}

static __always_inline __u32 hook_ifindex(struct __sk_buff *skb)
{
	return skb->ifindex;
}

static __always_inline void hook_read(struct __sk_buff *skb, struct packet *pkt)
{
	skb_read(skb, pkt);
}

static __always_inline void hook_open(struct __sk_buff *skb, struct packet *pkt)
{
	skb_open(skb, pkt);
}

/* After a change, all pointers into the packet are void. */
static __always_inline void set_headers(struct __sk_buff *skb, struct packet *pkt)
{
	skb_set_data(skb, pkt);
	pkt->l3 = pkt->data + L2_ETHERNET;
}

static __always_inline __u64 hook_frame_len(struct __sk_buff *skb)
{
	return skb->len;
}

/*
 * gso_size is the payload of a segment's innermost header. For TCP that is the header that we see.
 * In UDP there may be a tunnel, of which the headers tell nothing: hook_segments_fit() asks the
 * kernel.
 */
static __always_inline __u32 hook_segment_len(struct __sk_buff *skb, const struct packet *pkt)
{
	const struct tcp_header *tcp = ip_l4(pkt);

	if (!skb->gso_size)
		return pkt->ip_len;
	if (ip_protocol(pkt) != IPPROTO_TCP || (__u8 *)(tcp + 1) > pkt->end)
		return pkt->ip_len;
	return ip_segment_len(pkt, tcp_header_len(tcp), skb->gso_size);
}

/*
 * Whether the segments of a packet larger than the MTU fit, although hook_segment_len() does not
 * show it. The kernel counts the headers of a tunnel that it has made or found, but compares with
 * the interface's MTU only. Where routing allows less, nobody knows. It does not count the header
 * of plain UDP if nothing has told it where that is. It expects an Ethernet header to be there.
 */
static __always_inline int hook_segments_fit(struct __sk_buff *skb, const struct packet *pkt,
					     const struct bpfw_hop_hot *hop)
{
	__u32 mtu = 0;

	if (!skb->gso_size || pkt->tuple->head.protocol != IPPROTO_UDP ||
	    ip_segment_len(pkt, sizeof(struct udp_header), skb->gso_size) > hop->mtu)
		return 0;
	if (bpf_check_mtu(skb, hop->port, &mtu, 0, BPF_MTU_CHK_SEGS) || mtu > hop->mtu)
		return 0;
	/* The helper does not measure by segments if the whole packet seems to fit. */
	return pkt->l2_len || pkt->ip_len > mtu + L2_ETHERNET;
}

/*
 * Makes an Ethernet header for a packet that came without one. The kernel takes it off again where
 * the egress has none. This is the last step that can say pass: the stack must not find such room
 * in its packet.
 */
static __always_inline int hook_make_room(struct __sk_buff *skb, struct packet *pkt)
{
	if (pkt->l2_len)
		return BPFW_GO_ON;
	if (bpf_skb_change_head(skb, L2_ETHERNET, 0))
		return BPFW_PASS_RESIZE;
	pkt->l2_len = L2_ETHERNET;
	set_headers(skb, pkt);
	pkt->check = l4_check(pkt);
	return (__u8 *)(pkt->check + 1) > pkt->end ? BPFW_DROP_ERROR : BPFW_GO_ON;
}

/*
 * Cut what follows the IP packet, and take the old tag off; the egress device adds its own. Then
 * make room.
 */
static __always_inline int hook_resize(struct __sk_buff *skb, struct packet *pkt,
				       const struct bpfw_hop_hot *hop __attribute__((unused)))
{
	/* The tag lies beside the frame, except where the kernel had no reason to move it. */
	if (pkt->l2_len > L2_ETHERNET)
		return BPFW_PASS_TAGS;
	if (skb->len > pkt->l2_len + pkt->ip_len &&
	    (skb->gso_size || bpf_skb_change_tail(skb, pkt->l2_len + pkt->ip_len, 0)))
		return BPFW_PASS_RESIZE;
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return BPFW_PASS_RESIZE;
	set_headers(skb, pkt);
	return hook_make_room(skb, pkt);
}

/*
 * The checksum is left to the hardware, or looks so; the kernel's helper knows. Two steps: a
 * partial checksum covers the pseudo header, which has the addresses and not the ports.
 */
static __always_inline int fix_partial(struct __sk_buff *skb, struct packet *pkt,
				       const struct bpfw_rewrite *rewrite)
{
	const __u32 l4 = sizeof(struct eth_header) + ip_segment_len(pkt, 0, 0);
	__u32 offset = l4 + __builtin_offsetof(struct tcp_header, check);
	__u64 flags = 0;

	if (pkt->tuple->head.protocol == IPPROTO_UDP) {
		offset = l4 + __builtin_offsetof(struct udp_header, check);
		flags = BPF_F_MARK_MANGLED_0;
	}
	if (bpf_l4_csum_replace(skb, offset, 0, rewrite->addr_delta, flags | BPF_F_PSEUDO_HDR))
		return BPFW_DROP_ERROR;
	if (is_ipv6(pkt))
		bpf_csum_update(skb, rewrite->addr_delta);
	if ((rewrite->flags & BPFW_CONN_PORTS) &&
	    bpf_l4_csum_replace(skb, offset, 0, rewrite->port_delta, flags))
		return BPFW_DROP_ERROR;
	set_headers(skb, pkt);
	return BPFW_GO_ON;
}

/*
 * As inet_proto_csum_replace_by_diff() for a complete checksum. The device may have given a sum
 * over the packet (CHECKSUM_COMPLETE). The sum changes by as much as the checksum field does
 * because of the addresses. Of IPv4, the header's checksum makes up for the addresses
 * themselves. Of IPv6, the checksum field does, where there is one.
 */
static __always_inline void fix_complete(struct __sk_buff *skb, const struct packet *pkt,
					 __u16 *check, const struct bpfw_rewrite *rewrite)
{
	const __u8 protocol = pkt->tuple->head.protocol;

	if (is_ipv6(pkt)) {
		if (!fix_check(check, rewrite->l4_delta, protocol))
			bpf_csum_update(skb, rewrite->l4_delta);
	} else if (fix_check(check, rewrite->l4_delta, protocol)) {
		bpf_csum_update(skb, ~(__u32)rewrite->addr_delta);
	}
}

/*
 * As ip_forward does. The table of rt_tos2priority repeats four priorities, which two bits of the
 * TOS select. Here each of the four is a byte, and the two bits are how far to shift.
 */
static __always_inline void set_priority(struct __sk_buff *skb, const struct packet *pkt)
{
	const __u32 priorities = 4 << 24 | 6 << 16 | 2 << 8 | 0;

	if (update_priority)
		skb->priority = priorities >> (ipv4_tos(pkt) & 0x18) & 0xff;
}

/*
 * A sum over the packet that the device gave (CHECKSUM_COMPLETE) falls with the hop limit. With
 * IPv4, the header checksum makes up for that. The stack forgets such a sum when it forwards
 * (skb_forward_csum in ip6_forward). A program cannot do that, and a veth would hand a wrong sum to
 * the other side.
 */
static __always_inline void count_hop(struct __sk_buff *skb)
{
	bpf_csum_update(skb, ~(__u32)bpf_htons(1));
}

/* Leaves the IP header and the ports readable. Without translation no checksum of IPv6 changes. */
static __always_inline int fix_ipv6(struct __sk_buff *skb, struct packet *pkt,
				    const struct bpfw_rewrite *rewrite, __u16 *check)
{
	int verdict = BPFW_GO_ON;

	count_hop(skb);
	if (!(rewrite->flags & BPFW_CONN_NAT))
		return BPFW_GO_ON;
	if (ip_looks_partial(pkt, ip_protocol(pkt), *check))
		verdict = fix_partial(skb, pkt, rewrite);
	else
		fix_complete(skb, pkt, check, rewrite);
	if (!verdict && (__u8 *)ip_l4(pkt) + sizeof(struct l4_ports) > pkt->end)
		return BPFW_DROP_ERROR;
	return verdict;
}

/* The same for both families. ip6_forward sets no priority. */
static __always_inline int fix_any(struct __sk_buff *skb, struct packet *pkt,
				   const struct bpfw_rewrite *rewrite, __u16 *check)
{
	int verdict;

	if (is_ipv6(pkt))
		return fix_ipv6(skb, pkt, rewrite, check);
	if (rewrite->flags & BPFW_CONN_NAT) {
		if (ip_looks_partial(pkt, ip_protocol(pkt), *check)) {
			verdict = fix_partial(skb, pkt, rewrite);
			if (verdict)
				return verdict;
		} else {
			fix_complete(skb, pkt, check, rewrite);
		}
	}
	if ((__u8 *)ip_l4(pkt) + sizeof(struct l4_ports) > pkt->end)
		return BPFW_DROP_ERROR;
	set_priority(skb, pkt);
	return BPFW_GO_ON;
}

/* Any checksum will do. */
static __always_inline int hook_likes_check(const struct packet *pkt __attribute__((unused)),
					    __u8 protocol __attribute__((unused)),
					    __u64 check __attribute__((unused)))
{
	return 1;
}

/* As hook_fix_l4_checksum() for a packet that parse_plain() takes. */
static __always_inline int hook_express(struct __sk_buff *skb, struct packet *pkt,
					const struct bpfw_rewrite *rewrite)
{
	return fix_any(skb, pkt, rewrite, pkt->check);
}

static __always_inline int hook_fix_l4_checksum(struct __sk_buff *skb, struct packet *pkt,
						const struct bpfw_rewrite *rewrite)
{
	__u16 *check = l4_check(pkt);

	if ((__u8 *)(check + 1) > pkt->end)
		return BPFW_DROP_ERROR;
	return fix_any(skb, pkt, rewrite, check);
}

static __always_inline void hook_write_l2(struct packet *pkt, const struct bpfw_hop_hot *hop)
{
	copy_eth(pkt->data, hop->l2);
}

/* Without a stamp: what the fast path sends proves nothing about the stack. */
static __always_inline int hook_redirect(struct __sk_buff *skb, __u32 port)
{
	skb->tc_index = 0;
	return bpf_redirect(port, 0);
}

/* If the stack sends this packet, that is a proof. */
static __always_inline void hook_ask(struct __sk_buff *skb, __u16 stamp)
{
	skb->tc_index = stamp;
}

/* Only packets that ask for a proof keep a stamp. The next program decides further. */
static __always_inline int hook_pass(struct __sk_buff *skb, int verdict)
{
	if (verdict != BPFW_PASS_UNPROVEN)
		skb->tc_index = 0;
	return TC_ACT_UNSPEC;
}

#endif
