/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The express lane, for what is plain in every way: no tags, no options, nothing to cut off, a
 * connection that has its next hop and nothing to report. It writes nothing before it is sure, so
 * that the full lane can begin anew with all others, and say why.
 *
 * Its order is for speed. BPF has four registers that survive a call, so whatever can be is read
 * from the packet and the connection only after the last look-up.
 */
#ifndef EXPRESS_LANE_H
#define EXPRESS_LANE_H

#include "handover.h"
#include "ip.h"
#include "next_hop.h"
#include "parse_l4.h"

/* Where the L4 checksum is; here and now, or the compiler makes one pointer of UDP's and TCP's. */
static __always_inline int note_check(struct packet *pkt, __u8 protocol, __u16 *where, __u64 check)
{
	opaque(where);
	pkt->check = where;
	return hook_likes_check(pkt, protocol, check);
}

static __always_inline int parse_plain_udp(struct packet *pkt, struct udp_header *udp)
{
	__u64 check = udp->check;

	/* Or Clang makes 16 bits of this and TCP's, and extends them again. */
	opaque(check);
	return bpf_ntohs(udp->len) == ip_l4_len(pkt) &&
	       note_check(pkt, IPPROTO_UDP, &udp->check, check);
}

/* A checksum of 0 is rare, and here it shall say that there is none, as UDP's does. */
static __always_inline int parse_plain_tcp(struct packet *pkt, struct tcp_header *tcp)
{
	__u32 header_len = tcp_header_len(tcp);
	__u32 least = sizeof(*tcp), most = ip_l4_len(pkt);
	__u64 check = tcp->check;

	/* There is a whole header, so most is not below least: one comparison is enough. */
	return is_plain_segment(tcp->flags) && header_len - least <= most - least && check &&
	       note_check(pkt, IPPROTO_TCP, &tcp->check, check);
}

/*
 * What parse() and check_size() find in order. What is wrong with the rest the full lane says,
 * except that it is of the other family.
 */
static __always_inline int parse_plain(hook_ctx *ctx, struct packet *pkt)
{
	struct eth_header *eth = (void *)pkt->data;
	/* A shorter UDP packet of IPv4 has padding behind it, except on virtual links. */
	const __u64 least = is_ipv6(pkt) ? sizeof(struct udp_header) : sizeof(struct tcp_header);
	struct tcp_header *tcp;
	int verdict;

	pkt->l3 = pkt->data + pkt->l2_len;
	tcp = ip_l4(pkt);
	if ((__u8 *)tcp + least > pkt->end || pkt->from.vlan_proto)
		return BPFW_PASS_SHORT;
	verdict = check_type(pkt, pkt->l2_len ? eth->h_proto : pkt->type);
	if (verdict)
		return verdict;
	if (!ip_read_len(pkt) || pkt->ip_len != hook_frame_len(ctx) - pkt->l2_len ||
	    !ip_parse_plain(pkt))
		return BPFW_PASS_IP_HEADER;
	note_ports(pkt, (void *)tcp);
	switch (ip_protocol(pkt)) {
	case IPPROTO_TCP:
		if ((__u8 *)(tcp + 1) > pkt->end)
			return BPFW_PASS_SHORT;
		ip_note_protocol(pkt, IPPROTO_TCP);
		return parse_plain_tcp(pkt, tcp) ? BPFW_GO_ON : BPFW_PASS_L4_HEADER;
	case IPPROTO_UDP:
		ip_note_protocol(pkt, IPPROTO_UDP);
		return parse_plain_udp(pkt, (void *)tcp) ? BPFW_GO_ON : BPFW_PASS_L4_HEADER;
	default:
		return BPFW_PASS_PROTOCOL;
	}
}

/* As check_connection(), which knows better what silence is; a finished one has no next hop. */
static __always_inline int is_alive(const __u8 family, const struct bpfw_cell *cell, __u64 now)
{
	return (__u32)now - cell->last_seen < ip_idle(family, cell) && !is_volume_full(cell);
}

/* As check_ingress() and check_size(). */
static __always_inline int fits(hook_ctx *ctx, const struct packet *pkt,
				const struct bpfw_hop_hot *hop)
{
	return hop->from.ifindex == pkt->from.ifindex && is_sent_to(pkt, hop->from_mac) &&
	       hook_segment_len(ctx, pkt) <= hop->express_mtu;
}

static __always_inline int express_lane(hook_ctx *ctx, const __u32 l2_len, const __u8 family,
					__u32 *port)
{
	struct bpfw_tuple tuple;
	/* Other segments are not plain. */
	struct packet pkt = {
		.tuple = &tuple, .l2_len = l2_len, .family = family, .tcp_flags = TCPHDR_ACK};
	__u64 now = bpf_jiffies64();
	struct snapshot snap;
	struct bpfw_cell *cell;
	struct bpfw_hop_hot *hop;
	__u32 number;
	int verdict;

	/* At XDP, IPv4's lane comes first, and has looked for IPv6's packets, too. */
	if ((HOOK == BPFW_HOOK_TC || family == BPFW_FAMILY_IPV4) && is_late(now))
		return BPFW_GO_ON;
	hook_read(ctx, &pkt);
	verdict = parse_plain(ctx, &pkt);
	if (verdict)
		return verdict == OTHER_FAMILY ? OTHER_FAMILY : BPFW_GO_ON;
	pkt.hash = ip_hash(family, &tuple);
	cell = find_cell(family, &tuple, pkt.hash, &number);
	pkt.from.ifindex = hook_ifindex(ctx);
	if (!cell)
		return BPFW_GO_ON;
	/* Once more, so that it takes no register and no stack while the cell is looked up. */
	if (is_ipv6(&pkt))
		ipv6_note_len(&pkt);
	take_hop_word(cell, &snap);
	if (hop_generation(snap.hop_word) !=
		    hop_generation_now(generation_now.current, pkt.hash, now) ||
	    !is_alive(family, cell, now))
		return BPFW_GO_ON;
	hop = hop_at(hop_slot(snap.hop_word));
	if (!fits(ctx, &pkt, hop) || take_plain_snapshot(family, pkt.hash, cell, &snap))
		return BPFW_GO_ON;
	verdict = hook_make_room(ctx, &pkt);
	if (verdict)
		return verdict == BPFW_PASS_RESIZE ? BPFW_GO_ON : verdict;
	verdict = hook_express(ctx, &pkt, &snap.translation.rewrite);
	if (verdict)
		return verdict;
	ip_translate(&pkt, &snap.translation);
	copy_eth(pkt.data, hop->l2);
	note_forwarded(&pkt, cell, now);
	*port = hop->port;
	return BPFW_FORWARDED;
}

#endif
