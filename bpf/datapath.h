/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A packet's way, from top to bottom. Each step says go on, or gives the verdict. Nothing in the
 * packet changes before the last step that can say pass.
 */
#ifndef DATAPATH_H
#define DATAPATH_H

#include "counters.h"
#include "express_lane.h"
#include "handover.h"
#include "heartbeat.h"
#include "ip.h"
#include "next_hop.h"
#include "parse_l2.h"
#include "parse_l4.h"

static __always_inline int parse(hook_ctx *ctx, struct packet *pkt)
{
	int verdict;

	pkt->from.ifindex = hook_ifindex(ctx);
	hook_read(ctx, pkt);
	hook_open(ctx, pkt);
	verdict = parse_l2(pkt);
	if (verdict)
		return verdict;
	verdict = ip_parse(pkt, hook_frame_len(ctx));
	if (verdict)
		return verdict;
	return parse_l4(pkt);
}

/*
 * Whether there was silence for so long that conntrack's entry may end before the daemon, which
 * looks at it now and then, notices this packet.
 */
static __always_inline int was_idle(const struct conn *conn, __u64 now)
{
	__s64 limit = conn->rest->idle_limit;

	return (__s32)((__u32)now - conn->cell->last_seen) > limit &&
	       (__s64)(now - conn->rest->passed_up) > limit;
}

/* What conntrack or the daemon must see, although the connection is offloaded. */
static __always_inline int check_connection(const struct packet *pkt, const struct conn *conn,
					    const struct snapshot *snap, __u64 now)
{
	if (must_assure(conn->rest, now))
		return BPFW_PASS_UNASSURED;
	if (was_idle(conn, now))
		return BPFW_PASS_IDLE;
	if (pkt->tuple->head.protocol != IPPROTO_TCP || is_plain_segment(pkt->tcp_flags))
		return BPFW_GO_ON;
	if (pkt->tcp_flags & (TCPHDR_FIN | TCPHDR_RST))
		finish(pkt, conn, snap, now);
	return BPFW_PASS_TCP_FLAGS;
}

/* What the stack would answer with an ICMP error, or split. */
static __always_inline int check_size(hook_ctx *ctx, const struct packet *pkt,
				      const struct bpfw_hop_hot *hop)
{
	if (pkt->ttl <= 1)
		return BPFW_PASS_TTL;
	if (hook_segment_len(ctx, pkt) <= hop->mtu || hook_segments_fit(ctx, pkt, hop))
		return BPFW_GO_ON;
	return BPFW_PASS_TOO_BIG;
}

static __always_inline int send(hook_ctx *ctx, struct packet *pkt, const struct snapshot *snap,
				const struct bpfw_hop_hot *hop)
{
	int verdict;

	verdict = hook_resize(ctx, pkt, hop);
	if (verdict)
		return verdict;
	verdict = hook_fix_l4_checksum(ctx, pkt, &snap->translation.rewrite);
	if (verdict)
		return verdict;
	ip_translate(pkt, &snap->translation);
	hook_write_l2(pkt, hop);
	return BPFW_GO_ON;
}

/* The next hop as of this generation; where the packet came in decides on it, too. */
static __always_inline int find_hop(hook_ctx *ctx, const struct packet *pkt,
				    const struct conn *conn, struct snapshot *snap,
				    const struct bpfw_generation *generation, __u64 now)
{
	struct bpfw_link *link;
	int verdict;

	verdict = find_link(pkt, &link);
	if (verdict)
		return verdict;
	/* The mark of the end may not be visible yet. Or the memory's last owner had ended. */
	if (!snap->hop_word)
		conn->rest->finished = 1;
	if (conn->rest->finished)
		return hand_up(pkt, conn->rest, now, BPFW_PASS_FINISHED);
	/* The link must be one of this generation, not of a later one. */
	if (!is_current(generation->current))
		return BPFW_PASS_PAUSED;
	verdict = look_up(ctx, pkt, link, conn, snap, generation, now);
	if (verdict == BPFW_PASS_UNPROVEN) {
		hook_ask(ctx, stamp_of(generation->current, conn->rest, conn->rest->way_back, now));
		/* A stranger could end the connection from where its answers do not leave. */
		if (pkt->tcp_flags & (TCPHDR_FIN | TCPHDR_RST) &&
		    conn->rest->way_back == link->ifindex)
			finish(pkt, conn, snap, now);
	}
	if (verdict)
		return hand_up(pkt, conn->rest, now, verdict);
	return verdict;
}

/* Whether the packet came in where its next hop says, sent to this router. */
static __always_inline int check_ingress(const struct packet *pkt, const struct bpfw_hop_hot *hop)
{
	struct bpfw_link *link;
	int verdict;

	if (pkt->from.ifindex == hop->from.ifindex && pkt->from.vlan_id == hop->from.vlan_id &&
	    pkt->from.vlan_proto == hop->from.vlan_proto && is_sent_to(pkt, hop->from_mac))
		return BPFW_GO_ON;
	verdict = find_link(pkt, &link);
	return verdict ? verdict : BPFW_PASS_INGRESS;
}

static __always_inline int forward(hook_ctx *ctx, struct packet *pkt, const struct conn *conn,
				   const struct bpfw_generation *generation, __u64 now, __u32 *port)
{
	struct snapshot snap;
	struct bpfw_hop_hot *hop;
	int verdict;

	take_hop_word(conn->cell, &snap);
	verdict = take_snapshot(pkt->family, pkt->tuple, &pkt->key->hash, conn->cell, &snap);
	if (verdict)
		return verdict;
	if (conn->rest->finished ||
	    hop_generation(snap.hop_word) !=
		    hop_generation_now(generation->current, pkt->key->hash, now)) {
		verdict = find_hop(ctx, pkt, conn, &snap, generation, now);
		if (verdict)
			return verdict;
	}
	hop = hop_at(hop_slot(snap.hop_word));
	verdict = check_ingress(pkt, hop);
	if (verdict)
		return verdict;
	verdict = check_connection(pkt, conn, &snap, now);
	if (!verdict)
		verdict = check_size(ctx, pkt, hop);
	if (!verdict)
		verdict = send(ctx, pkt, &snap, hop);
	if (verdict)
		return hand_up(pkt, conn->rest, now, verdict);
	note_forwarded(pkt, conn->cell, now);
	if (is_volume_full(conn->cell))
		empty_volume(conn->cell, conn->rest);
	*port = hop->port;
	return BPFW_FORWARDED;
}

static __always_inline int walk(hook_ctx *ctx, const __u32 l2_len, const __u8 family, __u32 *port)
{
	struct packet_key key = {};
	struct packet pkt = {
		.key = &key, .tuple = &key.signal.tuple, .l2_len = l2_len, .family = family};
	__u64 now = bpf_jiffies64();
	struct bpfw_generation generation;
	struct conn conn;
	int verdict;

	hook_note_seen(ctx, now);
	read_generation(&generation);
	verdict = check_daemon(now, generation.current);
	if (verdict)
		return verdict;
	verdict = parse(ctx, &pkt);
	if (verdict)
		return verdict;
	key.hash = ip_hash(family, pkt.tuple);
	if (!find_conn(family, pkt.tuple, &key.hash, &conn))
		return pass_unknown(&pkt, now);
	return forward(ctx, &pkt, &conn, &generation, now, port);
}

/* No hook has such an action. */
#define NO_ACTION 255

static __always_inline int act(hook_ctx *ctx, int verdict, __u32 port)
{
	count(verdict);
	if (verdict == BPFW_FORWARDED)
		return hook_redirect(ctx, port);
	if (verdict == BPFW_DROP_ERROR)
		return HOOK_DROP;
	return hook_pass(ctx, verdict);
}

static __always_inline int full_lane(hook_ctx *ctx, const __u32 l2_len, const __u8 family)
{
	__u32 port = 0;
	int verdict = walk(ctx, l2_len, family, &port);

	if (verdict == OTHER_FAMILY)
		return OTHER_FAMILY;
	LOG_DEBUG("verdict %d", verdict);
	return act(ctx, verdict, port);
}

static __always_inline int try_express_lane(hook_ctx *ctx, const __u32 l2_len, const __u8 family)
{
	__u32 port = 0;
	int verdict = express_lane(ctx, l2_len, family, &port);

	if (verdict == OTHER_FAMILY)
		return OTHER_FAMILY;
	return verdict ? act(ctx, verdict, port) : NO_ACTION;
}

/*
 * An entry point, for packets with this many bytes in front of the IP header. Each lane is made for
 * IPv4 and for IPv6. IPv4's come first, unless the hook knows better, and tell when a packet is
 * IPv6's. The full lanes are functions of their own, so that they take no registers and no stack
 * from the express lanes.
 */
#define ENTRY_POINT(section, name, l2_len)                                                         \
	static __attribute__((noinline)) int name##_full(hook_ctx *ctx)                            \
	{                                                                                          \
		return full_lane(ctx, l2_len, BPFW_FAMILY_IPV4);                                   \
	}                                                                                          \
                                                                                                   \
	static __attribute__((noinline)) int name##_full_ipv6(hook_ctx *ctx)                       \
	{                                                                                          \
		return full_lane(ctx, l2_len, BPFW_FAMILY_IPV6);                                   \
	}                                                                                          \
                                                                                                   \
	static HOOK_EXPRESS int name##_express(hook_ctx *ctx)                                      \
	{                                                                                          \
		return try_express_lane(ctx, l2_len, BPFW_FAMILY_IPV4);                            \
	}                                                                                          \
                                                                                                   \
	static HOOK_EXPRESS int name##_express_ipv6(hook_ctx *ctx)                                 \
	{                                                                                          \
		return try_express_lane(ctx, l2_len, BPFW_FAMILY_IPV6);                            \
	}                                                                                          \
                                                                                                   \
	SEC(section) int name(hook_ctx *ctx)                                                       \
	{                                                                                          \
		int action = hook_is_ipv6(ctx) ? OTHER_FAMILY : name##_express(ctx);               \
                                                                                                   \
		/* One comparison for most packets. */                                             \
		if (action < NO_ACTION)                                                            \
			return action;                                                             \
		action = action == NO_ACTION ? name##_full(ctx) : name##_express_ipv6(ctx);        \
		if (action < NO_ACTION)                                                            \
			return action;                                                             \
		return name##_full_ipv6(ctx);                                                      \
	}

#endif
