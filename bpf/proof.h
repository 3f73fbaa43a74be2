/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Proof that the stack forwards a direction of a connection: it has sent a packet of it.
 *
 * Conntrack calls a connection established before the forward chain has decided about any packet.
 * So neither conntrack's word nor a packet that was handed to the stack shows that the rules let it
 * pass. Only a packet that leaves does. It carries a stamp from the way in (TC ingress) to the way
 * out (TC egress). There bpfw_egress stores the proof in its entry.
 *
 * check_proof() in next_hop.h compares it. find_hop() in datapath.h hands up what has none.
 */
#ifndef PROOF_H
#define PROOF_H

#include "connection.h"
#include "heartbeat.h"

/* The number of the current period. Staggered: connections do not all ask at the same moment. */
static __always_inline __u32 period_of(__u64 hash, __u64 now)
{
	return (now + (hash >> 48)) >> generation_now.period;
}

/*
 * What the low half of a hop word must be now. The generation and the number of the period only
 * grow, so an equal sum means that both are equal. Generations begin with BPFW_FIRST_GENERATION:
 * in a pause (BPFW_PAUSED) no hop word fits, nor ever one without a next hop.
 */
static __always_inline __u32 hop_generation_now(__u32 current, __u64 hash, __u64 now)
{
	return current + period_of(hash, now);
}

/* Under which rules, and in which period, a proof holds. */
static __always_inline __u32 epoch_of(__u32 policy, __u64 hash, __u64 now)
{
	return policy + period_of(hash, now);
}

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * BPFW_FACTOR;
	return hash ^ hash >> 32;
}

/*
 * What a packet carries from the way in to the way out. 0 means no stamp. Another generation,
 * period, way back, mark or conntrack entry makes another stamp. So a packet that was held back
 * while one of these changed proves nothing: it may have passed the old rules.
 */
static __always_inline __u16 stamp_of(__u32 current, const struct bpfw_rest *rest, __u32 way_back,
				      __u64 now)
{
	__u64 known = mix(mix(way_back, rest->id), rest->mark);

	return (current + period_of(0, now) + known) | 1U << 15;
}

/* What the stack must have done with a packet, besides the MAC addresses of the frame. */
struct way {
	__u32 epoch;
	__u32 ingress; /* L3 interface, or its VRF: the stack knows no more at the way out */
	__u32 egress;  /* L3 interface */
	__u32 back;    /* bpfw_rest.way_back */
};

/*
 * The proof for a connection's direction: tuple and translation (both in the seal), conntrack's id,
 * and the way of a packet. One word, so that one store writes and one comparison checks it; a
 * mixture of two proofs fits nothing.
 */
static __always_inline __u64 proof_of(__u32 seal, __u32 id, const struct way *way, const __u8 *macs)
{
	__u64 proof = mix(settings.seed, (__u64)seal << 32 | id);

	proof = mix(proof, (__u64)way->epoch << 32 | way->ingress);
	proof = mix(proof, (__u64)way->egress << 32 | way->back);
	proof = mix(proof, (__u64) * (const __u16 *)macs << 32 | *(const __u32 *)(macs + 2));
	proof = mix(proof, (__u64) * (const __u16 *)(macs + 10) << 32 | *(const __u32 *)(macs + 6));
	return proof ? proof : 1;
}

#endif
