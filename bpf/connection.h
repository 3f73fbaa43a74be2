/* SPDX-License-Identifier: GPL-2.0-only */
/* Finding a packet's connection, and holding on to what was found. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include "conn_table.h"
#include "packet.h"

/* A copy of what must belong together, see struct bpfw_conn. */
struct snapshot {
	struct bpfw_rewrite rewrite;
	__u64 hop_word;
	__u64 seal;
};

static __always_inline __u64 seal_step(__u64 seal, __u64 word)
{
	return seal * BPFW_FACTOR + word;
}

/* Read before the copy below: what that finds to be this connection's, this is, too. */
static __always_inline void take_hop_word(struct bpfw_conn *conn, struct snapshot *snap)
{
	snap->hop_word = *(volatile __u64 *)&conn->hop_word;
}

/*
 * Copy the rewrite, then make sure that it is this connection's. Volatile: the compiler must
 * not read again later what may have changed meanwhile. The seal over both makes the order in
 * which the memory's new owner becomes visible irrelevant, on weakly ordered machines too.
 */
static __always_inline int take_snapshot(const struct packet *pkt, struct bpfw_conn *conn,
					 struct snapshot *snap)
{
	volatile __u64 *rewrite = (volatile __u64 *)&conn->rewrite;
	__u64 seal = pkt->hash;
	__u64 words[3];

#pragma unroll
	for (int i = 0; i < 3; i++) {
		words[i] = rewrite[i];
		seal = seal_step(seal, words[i]);
	}
	if (seal != *(volatile __u64 *)&conn->seal)
		return BPFW_PASS_REUSED;
	__builtin_memcpy(&snap->rewrite, words, sizeof(words));
	snap->seal = seal;
	return BPFW_GO_ON;
}

/* The mark that the connection is routed by; it must belong to the copy. */
static __always_inline int take_mark(struct bpfw_conn *conn, const struct snapshot *snap,
				     __u32 *mark)
{
	*mark = *(volatile __u32 *)&conn->mark;
	if (*(volatile __u32 *)&conn->mark_seal != (__u32)seal_step(snap->seal, *mark))
		return BPFW_PASS_REUSED;
	return BPFW_GO_ON;
}

/* The tuple of the other direction: its packets come in as this one's go out, turned around. */
static __always_inline void reverse_tuple(const struct packet *pkt, const struct snapshot *snap,
					  struct bpfw_tuple *reverse)
{
	*reverse = (struct bpfw_tuple){
		.src_addr = snap->rewrite.dst_addr,
		.dst_addr = snap->rewrite.src_addr,
		.src_port = snap->rewrite.dst_port,
		.dst_port = snap->rewrite.src_port,
		.protocol = pkt->tuple->protocol,
	};
}

/* Whether conntrack must see a packet, to call this connection a stream. */
static __always_inline int must_assure(const struct bpfw_conn *conn, __u64 now)
{
	return conn->pass_from && (__s32)((__u32)now - conn->pass_from) >= 0;
}

static __always_inline void note_forwarded(const struct packet *pkt, struct bpfw_conn *conn,
					   __u64 now)
{
	conn->last_seen = now;
	__sync_fetch_and_add(&conn->packets, 1);
	__sync_fetch_and_add(&conn->bytes, pkt->ip_len);
}

#endif
