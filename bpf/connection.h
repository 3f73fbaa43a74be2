/* SPDX-License-Identifier: GPL-2.0-only */
/* Finding a packet's connection, and holding on to what was found. How it ends: handover.h. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include "conn_table.h"
#include "packet.h"

/* A copy of what must belong together, see struct bpfw_cell. */
struct snapshot {
	struct bpfw_translation translation;
	__u64 hop_word;
	__u32 seal;
};

static __always_inline __u64 seal_step(__u64 seal, __u64 word)
{
	return seal * BPFW_FACTOR + word;
}

/* Read this first. If the snapshot below turns out to be ours, the hop word is ours as well. */
static __always_inline void take_hop_word(struct bpfw_cell *cell, struct snapshot *snap)
{
	snap->hop_word = *(volatile __u64 *)&cell->hop_word;
}

/*
 * Copy the rewrite, then make sure that it is this connection's. Volatile: the compiler must
 * not read again later what may have changed meanwhile. The seal over both makes the order in
 * which the memory's new owner becomes visible irrelevant, on weakly ordered machines too.
 */
static __always_inline int take_rewrite(__u64 hash, struct bpfw_cell *cell, struct snapshot *snap)
{
	volatile __u64 *rewrite = (volatile __u64 *)&cell->rewrite;
	__u64 words[3], seal = hash;

#pragma unroll
	for (int i = 0; i < 3; i++)
		words[i] = rewrite[i];
	/* Clang would add to a copy of the word, which is needed once more. */
	opaque(seal);
	/* The hash is a product already. */
	seal = seal_step(seal + words[0], words[1]);
	seal = seal_step(seal, words[2]) * BPFW_FACTOR;
	snap->seal = seal >> 32;
	if (snap->seal != *(volatile __u32 *)&cell->seal)
		return BPFW_PASS_REUSED;
	__builtin_memcpy(&snap->translation.rewrite, words, sizeof(words));
	return BPFW_GO_ON;
}

/*
 * The same for IPv6 without translation: all words of the tuple have been compared. A translated
 * entry's seal never fits.
 */
static __always_inline int take_untranslated(__u64 hash, struct bpfw_cell *cell,
					     struct snapshot *snap)
{
	snap->translation.rewrite = (struct bpfw_rewrite){};
	snap->seal = ipv6_seal(hash, cell);
	return snap->seal == *(volatile __u32 *)&cell->seal ? BPFW_GO_ON : BPFW_PASS_REUSED;
}

/*
 * The same for IPv6 with translation. The map's memory changes hands as a cell's does. So this is a
 * copy, too, and the seal covers tuple and copy. The last bit makes it differ from the seal without
 * translation.
 */
static __always_inline int take_translation(const __u64 *hash, struct bpfw_cell *cell,
					    struct snapshot *snap)
{
	volatile __u64 *found = bpf_map_lookup_elem(&translation_map, hash);
	__u64 *words = (__u64 *)&snap->translation, seal = *hash;

	if (!found)
		return BPFW_PASS_REUSED;
#pragma unroll
	for (int i = 0; i < 6; i++) {
		words[i] = found[i];
		seal = seal_step(seal, words[i]);
	}
	seal = seal_step(seal, 0);
	snap->seal = ipv6_seal(*hash, cell) + (seal >> 32 | 1);
	return snap->seal == *(volatile __u32 *)&cell->seal ? BPFW_GO_ON : BPFW_PASS_REUSED;
}

/* The express lane's: what is translated in IPv6 is the full lane's. */
static __always_inline int take_plain_snapshot(const __u8 family, __u64 hash,
					       struct bpfw_cell *cell, struct snapshot *snap)
{
	return family == BPFW_FAMILY_IPV6 ? take_untranslated(hash, cell, snap)
					  : take_rewrite(hash, cell, snap);
}

static __always_inline int take_snapshot(const __u8 family, const struct bpfw_tuple *tuple,
					 const __u64 *hash, struct bpfw_cell *cell,
					 struct snapshot *snap)
{
	int verdict = BPFW_GO_ON;

	if (family != BPFW_FAMILY_IPV6)
		return take_rewrite(*hash, cell, snap);
	if (take_untranslated(*hash, cell, snap))
		verdict = take_translation(hash, cell, snap);
	else
		ipv6_keep(tuple, &snap->translation);
	keep_in_memory(snap->translation);
	return verdict;
}

/* Whether conntrack must see a packet, to call this connection a stream. */
static __always_inline int must_assure(const struct bpfw_rest *rest, __u64 now)
{
	return rest->pass_from && (__s32)((__u32)now - rest->pass_from) >= 0;
}

/* The express lane leaves this to the full lane. */
static __always_inline int is_volume_full(const struct bpfw_cell *cell)
{
	return (__u32)cell->volume >= BPFW_VOLUME_FULL;
}

static __always_inline void note_forwarded(const struct packet *pkt, struct bpfw_cell *cell,
					   __u64 now)
{
	cell->last_seen = now;
	__sync_fetch_and_add(&cell->volume, 1ULL << 32 | pkt->ip_len);
}

/* One packet of many: other CPUs may do the same, or go on counting meanwhile. */
static __always_inline void empty_volume(struct bpfw_cell *cell, struct bpfw_rest *rest)
{
	__u64 volume = __sync_lock_test_and_set(&cell->volume, 0);

	__sync_fetch_and_add(&rest->packets, volume >> 32);
	__sync_fetch_and_add(&rest->bytes, (__u32)volume);
}

#endif
