/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the connection of a tuple is: in the cell where its hash leads, in one of the next few, or
 * in conn_map. The kernel's hash map alone would be simpler; looking into a cell takes half of its
 * instructions. A miss in the cache is what counts with many connections: most are in their first
 * cell.
 *
 * The daemon looks in the same places: src/datapath/cells.rs. The hash is in ipv4.h and ipv6.h. Its
 * seed is random and odd; who could choose tuples that share their cells all the same would send
 * connections to conn_map, no more.
 */
#ifndef CONN_TABLE_H
#define CONN_TABLE_H

#include "ip.h"
#include "maps.h"
#include "settings.h"

/*
 * Ports that follow one another make multiples of the seed, which some seeds spread evenly over the
 * cells and others put in heaps. Another part of the product has heaps elsewhere.
 */
static __always_inline __u32 first_cell(__u64 hash)
{
	hash ^= hash >> 13;
	/* Clang would shift both operands. */
	opaque(hash);
	return hash >> 32 & settings.first_mask;
}

/* The cell, and its number. */
static __always_inline struct bpfw_cell *
find_cell(const __u8 family, const struct bpfw_tuple *tuple, __u64 hash, __u32 *number)
{
	*number = first_cell(hash);

#pragma unroll
	for (int i = 0; i < BPFW_PROBES; i++, ++*number) {
		struct bpfw_cell *cell = bpf_map_lookup_elem(&conn_cells, number);

		if (!cell)
			return 0;
		if (ip_is_of(family, cell, tuple))
			return cell;
	}
	return 0;
}

/* One direction of a connection, wherever it is. */
struct conn {
	struct bpfw_cell *cell;
	struct bpfw_rest *rest;
};

/* Whether there is one. */
static __always_inline int find_conn(const __u8 family, const struct bpfw_tuple *tuple,
				     const __u64 *hash, struct conn *conn)
{
	struct bpfw_conn *spilled;
	__u32 number;

	conn->cell = find_cell(family, tuple, *hash, &number);
	if (conn->cell) {
		conn->rest = bpf_map_lookup_elem(&conn_rests, &number);
		return conn->rest != 0;
	}
	spilled = bpf_map_lookup_elem(&conn_map, hash);
	if (!spilled || !ip_is_of(family, &spilled->cell, tuple))
		return 0;
	conn->cell = &spilled->cell;
	conn->rest = &spilled->rest;
	return 1;
}

#endif
