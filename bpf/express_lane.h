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
#include "next_hop.h"
#include "translate.h"

static __always_inline int is_plain_udp(const struct packet *pkt, const struct udp_header *udp)
{
	return host16(udp->len) == pkt->ip_len - sizeof(struct ipv4_header);
}

static __always_inline int is_plain_tcp(const struct packet *pkt, const struct tcp_header *tcp)
{
	__u32 header_len = tcp_header_len(tcp);

	return is_plain_segment(tcp->flags) && header_len >= sizeof(*tcp) &&
	       header_len <= pkt->ip_len - sizeof(struct ipv4_header);
}

/* What parse() and check_size() find in order, without saying what is wrong with the rest. */
static __always_inline int is_plain(hook_ctx *ctx, struct packet *pkt)
{
	struct eth_header *eth = (void *)pkt->data;
	struct ipv4_header *ip = (void *)(eth + 1);
	struct tcp_header *tcp = (void *)(ip + 1);

	/* A UDP packet this short has padding behind it, except on virtual links. */
	if ((__u8 *)(tcp + 1) > pkt->end || pkt->from.vlan_proto)
		return 0;
	if (eth->type != ETHERTYPE_IPV4 || ip->version_ihl != IPV4_VERSION_IHL)
		return 0;
	pkt->l3 = (__u8 *)ip;
	pkt->ip_len = host16(ip->total_len);
	if (pkt->ip_len != hook_frame_len(ctx) - sizeof(*eth))
		return 0;
	if (!ipv4_checksum_ok(ip) || (ip->frag & IPV4_FRAGMENT) || ip->ttl <= 1)
		return 0;
	note_addresses(pkt, ip);
	note_ports(pkt, (void *)tcp);
	switch (ip->protocol) {
	case PROTOCOL_TCP:
		return is_plain_tcp(pkt, tcp);
	case PROTOCOL_UDP:
		return is_plain_udp(pkt, (void *)tcp);
	default:
		return 0;
	}
}

/* As check_connection(), which knows better what silence is. */
static __always_inline int is_alive(const struct bpfw_conn *conn, __u64 now)
{
	return !conn->finished && !must_assure(conn, now) &&
	       (__s64)(now - conn->last_seen) <= (__s64)conn->idle_limit;
}

/* As check_ingress() and check_size(). */
static __always_inline int fits(hook_ctx *ctx, const struct packet *pkt, const struct bpfw_hop *hop)
{
	return hop->plain && hop->from.ifindex == pkt->from.ifindex &&
	       same_mac(pkt->data, hop->from_mac) && hook_segment_len(ctx, pkt) <= hop->mtu;
}

/* Twice the same code, so that neither has to ask which it is. */
static __always_inline int express_checksum(hook_ctx *ctx, struct packet *pkt,
					    const struct bpfw_rewrite *rewrite)
{
	struct tcp_header *tcp = (void *)(pkt->l3 + sizeof(struct ipv4_header));
	struct udp_header *udp = (void *)tcp;

	if (pkt->tuple->protocol == PROTOCOL_UDP)
		return hook_express(ctx, pkt, rewrite, &udp->check, PROTOCOL_UDP);
	return hook_express(ctx, pkt, rewrite, &tcp->check, PROTOCOL_TCP);
}

static __always_inline int express_lane(hook_ctx *ctx, __u64 now, __u32 generation, __u32 *port)
{
	struct bpfw_tuple tuple;
	/* Other segments are not plain. */
	struct packet pkt = {.tuple = &tuple, .tcp_flags = TCP_ACK};
	struct snapshot snap;
	struct bpfw_conn *conn;
	struct bpfw_hop *hop;
	int verdict;

	hook_read(ctx, &pkt);
	if (!is_plain(ctx, &pkt))
		return BPFW_GO_ON;
	conn = bpf_map_lookup_elem(&conn_map, &tuple);
	pkt.from.ifindex = hook_ifindex(ctx);
	if (!conn)
		return pass_unknown(&pkt, now);
	take_hop_word(conn, &snap);
	if (hop_generation(snap.hop_word) != generation || !is_alive(conn, now))
		return BPFW_GO_ON;
	hop = hop_at(hop_slot(snap.hop_word));
	if (!fits(ctx, &pkt, hop) || take_snapshot(&pkt, conn, &snap))
		return BPFW_GO_ON;
	verdict = express_checksum(ctx, &pkt, &snap.rewrite);
	if (verdict)
		return verdict == BPFW_DROP_ERROR ? verdict : BPFW_GO_ON;
	translate(&pkt, &snap.rewrite);
	copy_eth(pkt.data, hop->l2);
	note_forwarded(&pkt, conn, now);
	*port = hop->port;
	return BPFW_FORWARDED;
}

#endif
