/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A packet's way, from top to bottom. Each step says go on, or gives the verdict. Nothing in the
 * packet changes before the last step that can say pass.
 */
#ifndef DATAPATH_H
#define DATAPATH_H

#include "counters.h"
#include "handover.h"
#include "heartbeat.h"
#include "next_hop.h"
#include "parse_l2.h"
#include "parse_l3.h"
#include "parse_l4.h"
#include "translate.h"

static __always_inline int parse(hook_ctx *ctx, struct packet *pkt, struct bpfw_link **link)
{
	int verdict;

	hook_read(ctx, pkt, HEADERS_MAX);
	verdict = parse_l2(pkt);
	if (verdict)
		return verdict;
	verdict = find_link(pkt, link);
	if (verdict)
		return verdict;
	verdict = parse_l3(pkt, hook_frame_len(ctx));
	if (verdict)
		return verdict;
	return parse_l4(pkt);
}

/*
 * Whether there was silence for so long that conntrack's entry may end before the daemon, which
 * looks at it now and then, notices this packet.
 */
static __always_inline int was_idle(const struct bpfw_conn *conn, __u64 now)
{
	__u64 last = conn->last_seen > conn->passed_up ? conn->last_seen : conn->passed_up;

	return conn->idle_limit && (__s64)(now - last) > (__s64)conn->idle_limit;
}

/* What conntrack or the daemon must see, although the connection is offloaded. */
static __always_inline int check_connection(const struct packet *pkt, struct bpfw_conn *conn,
					    const struct snapshot *snap, __u64 now)
{
	if (conn->pass_from && (__s64)(now - conn->pass_from) >= 0)
		return BPFW_PASS_UNASSURED;
	if (was_idle(conn, now))
		return BPFW_PASS_IDLE;
	if (pkt->tuple.protocol != PROTOCOL_TCP || is_plain_segment(pkt))
		return BPFW_GO_ON;
	if (pkt->tcp_flags & (TCP_FIN | TCP_RST))
		finish(pkt, conn, snap, now, BPFW_FINISHED_TCP);
	return BPFW_PASS_TCP_FLAGS;
}

/* What the stack would answer with an ICMP error, or split. */
static __always_inline int check_size(hook_ctx *ctx, const struct packet *pkt,
				      const struct bpfw_hop *hop)
{
	if (pkt->ttl <= 1)
		return BPFW_PASS_TTL;
	return hook_segment_len(ctx, pkt) > hop->mtu ? BPFW_PASS_TOO_BIG : BPFW_GO_ON;
}

static __always_inline void note_forwarded(const struct packet *pkt, struct bpfw_conn *conn,
					   __u64 now)
{
	if (conn->last_seen != now)
		conn->last_seen = now;
	__sync_fetch_and_add(&conn->packets, 1);
	__sync_fetch_and_add(&conn->bytes, pkt->ip_len);
}

static __always_inline int send(hook_ctx *ctx, struct packet *pkt, const struct snapshot *snap,
				const struct bpfw_hop *hop)
{
	int verdict;

	verdict = hook_resize(ctx, pkt, hop);
	if (verdict)
		return verdict;
	verdict = hook_fix_l4_checksum(ctx, pkt, &snap->rewrite);
	if (verdict)
		return verdict;
	verdict = translate(pkt, &snap->rewrite);
	if (verdict)
		return verdict;
	return hook_write_l2(pkt, hop);
}

static __always_inline int forward(hook_ctx *ctx, struct packet *pkt, const struct bpfw_link *link,
				   struct bpfw_conn *conn, __u32 generation, __u64 now, __u32 *port)
{
	struct snapshot snap;
	struct bpfw_hop *hop;
	__u32 slot;
	int verdict;

	verdict = take_snapshot(pkt, conn, &snap);
	if (verdict)
		return verdict;
	if (conn->finished)
		return hand_up(pkt, conn, now, BPFW_PASS_FINISHED);
	if (hop_generation(snap.hop_word) != generation) {
		verdict = look_up(ctx, pkt, link, conn, &snap, generation, now);
		/* A stranger's packet leaves no trace, a dropped one does not reach conntrack. */
		if (verdict == BPFW_PASS_REVERSE || verdict == BPFW_DROP_BLACKHOLE)
			return verdict;
		if (verdict)
			return hand_up(pkt, conn, now, verdict);
	}
	if (hop_ingress(snap.hop_word) != link->slot)
		return BPFW_PASS_INGRESS;
	slot = hop_slot(snap.hop_word);
	hop = bpf_map_lookup_elem(&hop_map, &slot);
	if (!hop)
		return hand_up(pkt, conn, now, BPFW_PASS_HOPS_FULL);
	verdict = check_connection(pkt, conn, &snap, now);
	if (verdict)
		return hand_up(pkt, conn, now, verdict);
	verdict = check_size(ctx, pkt, hop);
	if (verdict)
		return hand_up(pkt, conn, now, verdict);
	verdict = send(ctx, pkt, &snap, hop);
	if (verdict)
		return hand_up(pkt, conn, now, verdict);
	note_forwarded(pkt, conn, now);
	*port = hop->port;
	return BPFW_FORWARDED;
}

static __always_inline int walk(hook_ctx *ctx, __u32 *port)
{
	__u64 now = bpf_jiffies64();
	struct packet pkt = {};
	struct bpfw_conn *conn;
	struct bpfw_link *link;
	__u32 generation;
	int verdict;

	verdict = check_daemon(now, &generation);
	if (verdict)
		return verdict;
	verdict = parse(ctx, &pkt, &link);
	if (verdict)
		return verdict;
	/* The link's slot has a meaning within its generation only. */
	if (!is_current(generation))
		return BPFW_PASS_REST;
	conn = bpf_map_lookup_elem(&conn_map, &pkt.tuple);
	if (!conn)
		return hand_unknown(&pkt, now);
	return forward(ctx, &pkt, link, conn, generation, now, port);
}

static __always_inline int run(hook_ctx *ctx)
{
	__u32 port = 0;
	int verdict = walk(ctx, &port);

	count(verdict);
	LOG_DEBUG("verdict %d", verdict);
	switch (verdict) {
	case BPFW_FORWARDED:
		return hook_redirect(ctx, port);
	case BPFW_DROP_BLACKHOLE:
	case BPFW_DROP_ERROR:
		return HOOK_DROP;
	default:
		return HOOK_PASS;
	}
}

#endif
