/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Giving packets and connections back to the stack, and telling the daemon. A connection has ended
 * when `finished` is noted and its hop word is 0.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include "connection.h"
#include "log.h"
#include "parse_l2.h"
#include "parse_l4.h"

static __always_inline void signal(const struct packet *pkt, __u64 time, __u64 flags)
{
	__u64 before;

	pkt->key->signal.time = time;
	bpf_map_update_elem(&new_conn_map, &pkt->key->hash, &pkt->key->signal, flags);
	/* Who sees the new number must find the signal. Only if used, its result is a barrier. */
	before = __sync_fetch_and_add(&signals, 1);
	asm volatile("" : : "r"(before));
}

/*
 * A packet of a connection that is not offloaded. One signal each: the daemon takes it out. TCP
 * segments that open or end a connection can offload nothing and are not worth one.
 */
static __always_inline int hand_unknown(const struct packet *pkt, __u64 now)
{
	struct bpfw_refused *refused;

	if (pkt->tuple->head.protocol == IPPROTO_TCP && !is_plain_segment(pkt->tcp_flags))
		return BPFW_PASS_UNKNOWN;
	refused = bpf_map_lookup_elem(&refused_map, &pkt->key->hash);
	if (refused && (__s64)(refused->until - now) > 0)
		return BPFW_PASS_REFUSED;
	if (!bpf_map_lookup_elem(&new_conn_map, &pkt->key->hash)) {
		LOG_INFO("signal: protocol %u, ports %x -> %x", pkt->tuple->head.protocol,
			 pkt->tuple->head.src_port, pkt->tuple->head.dst_port);
		signal(pkt, now, BPF_NOEXIST);
	}
	return BPFW_PASS_UNKNOWN;
}

/* Worth a signal only if it came in at an interface of ours, sent to it. */
static __always_inline int pass_unknown(const struct packet *pkt, __u64 now)
{
	struct bpfw_link *link;
	int verdict;

	verdict = find_link(pkt, &link);
	return verdict ? verdict : hand_unknown(pkt, now);
}

/* The express lane sees only the hop word. The exchange is a barrier: the mark is seen first. */
static __always_inline void end_one(const struct conn *conn)
{
	conn->rest->finished = 1;
	__sync_lock_test_and_set(&conn->cell->hop_word, 0);
}

/* No more packets of this connection, in both directions, until the daemon starts it anew. */
static __always_inline void finish(const struct packet *pkt, const struct conn *conn,
				   const struct snapshot *snap, __u64 now)
{
	struct bpfw_tuple reverse;
	struct conn other;
	__u64 hash;

	ip_reverse_rewritten(pkt->family, pkt->tuple, &snap->translation, &reverse);
	end_one(conn);
	hash = ip_hash(pkt->family, &reverse);
	if (find_conn(pkt->family, &reverse, &hash, &other))
		end_one(&other);
	signal(pkt, now, BPF_ANY);
	LOG_INFO("finished: ports %x -> %x", pkt->tuple->head.src_port, pkt->tuple->head.dst_port);
}

/*
 * Conntrack sees a segment of a TCP connection again. It would accept a RST only if that is exactly
 * the next segment after this one's acknowledgement (nf_conntrack_tcp_packet). So the daemon makes
 * it forget the acknowledgement. The end of a connection is signaled again with each packet. A
 * flood may have displaced the first signal, or the daemon had no time for it.
 */
static __always_inline int hand_up(const struct packet *pkt, struct bpfw_rest *rest, __u64 now,
				   int verdict)
{
	if (rest->finished) {
		if (rest->passed_up != now)
			signal(pkt, now, BPF_ANY);
	} else if (pkt->tuple->head.protocol == IPPROTO_TCP &&
		   !bpf_map_lookup_elem(&new_conn_map, &pkt->key->hash)) {
		signal(pkt, now | BPFW_SIGNAL_SEGMENT, BPF_NOEXIST);
	}
	rest->passed_up = now;
	return verdict;
}

#endif
