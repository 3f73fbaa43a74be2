/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps. docs/architecture.md says who writes which. */
#ifndef MAPS_H
#define MAPS_H

#include "bpfw_abi.h"
#include "kernel.h"

/*
 * Offloaded connections, two entries each, in one of the few cells where the tuple's hash leads:
 * conn_table.h. The daemon sets the size, and fills and frees cells. Whole pages, so that
 * cells begin where cache lines do.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BPFW_PROBES);
	__type(key, __u32);
	__type(value, struct bpfw_cell);
} conn_cells SEC(".maps");

/* What belongs to the cell of the same number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BPFW_PROBES);
	__type(key, __u32);
	__type(value, struct bpfw_rest);
} conn_rests SEC(".maps");

/*
 * Those that found no free cell, by the hash of their tuple. The daemon sets the size, inserts and
 * deletes. Of two with the same hash (one in 2^64 pairs), the second stays with the stack.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct bpfw_conn);
} conn_map SEC(".maps");

/*
 * What becomes of packets of translated IPv6 connections, by the hash of the tuple that they come
 * in with, wherever the entry is. The daemon sets the size, inserts before the entry and deletes
 * after it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct bpfw_translation);
} translation_map SEC(".maps");

/* Connections that the daemon should look at, by the hash of their tuple. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, BPFW_NEW_CONN_SLOTS);
	__type(key, __u64);
	__type(value, struct bpfw_signal);
} new_conn_map SEC(".maps");

/* How many signals there were: an unchanged number saves the daemon a walk through an empty map. */
volatile __u64 signals SEC(".data.signals") = 0;

/* Connections that are not worth a signal for now, by the hash of their tuple. Written by the
 * daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, BPFW_REFUSED_SLOTS);
	__type(key, __u64);
	__type(value, struct bpfw_refused);
} refused_map SEC(".maps");

/*
 * Next hops by slot. BPF writes a slot before its number is known to anyone, and not again until
 * the daemon has emptied hop_index in a pause. A variable needs no look-up.
 */
struct bpfw_hop_hot hops[BPFW_HOP_SLOTS] = {};

/* The slot of a next hop, by all of it. The daemon reads next hops here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, BPFW_HOP_SLOTS);
	__type(key, struct bpfw_hop);
	__type(value, __u32);
} hop_index SEC(".maps");

/* The number of slots in use. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} hop_count SEC(".maps");

/*
 * Two variables, each a map of its own because each has its own writer. Variables: the program
 * reads them without a look-up.
 */

/* The topology's generation. Written by bpfw_set_generation, which the daemon runs. */
volatile struct bpfw_generation generation_now SEC(".data.topology") = {
	.current = BPFW_PAUSED,
};

/* jiffies64 of the last heartbeat. Written by bpfw_beat, and to 0 by the daemon. */
volatile __u64 last_beat SEC(".data.beat") = 0;

/* Where frames come in. Written by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, BPFW_LINK_SLOTS);
	__type(key, struct bpfw_link_key);
	__type(value, struct bpfw_link);
} link_map SEC(".maps");

/* How packets leave. Written by the daemon, except for the counters. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, BPFW_LINK_SLOTS);
	__type(key, __u32);
	__type(value, struct bpfw_egress);
} egress_map SEC(".maps");

/*
 * Packets by CPU and verdict; the last row is that of all further CPUs. A variable: a map for each
 * CPU would take some more instructions.
 */
__u64 counters[BPFW_COUNTING_CPUS + 1][BPFW_COUNTERS] SEC(".data.counters") = {};

static __always_inline struct bpfw_hop_hot *hop_at(__u32 slot)
{
	struct bpfw_hop_hot *hop = &hops[slot & (BPFW_HOP_SLOTS - 1)];

	_Static_assert((BPFW_HOP_SLOTS & (BPFW_HOP_SLOTS - 1)) == 0, "slots are masked");
	/* Clang 14 would compute this anew for each field. */
	opaque(hop);
	return hop;
}

/* The value of a one-slot array. */
static __always_inline void *only_slot(void *map)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(map, &zero);
}

#endif
