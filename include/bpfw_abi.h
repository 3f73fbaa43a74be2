/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the BPF programs and the daemon both read: the maps' keys and values.
 *
 * Rules: fixed widths, explicit padding, no bitfields and no unions, so that every compiler and
 * every byte order lays a struct out alike. Fields named __be16 and __be32 are in network byte
 * order, all others in the machine's. bindgen makes the Rust twin of this file.
 */
#ifndef BPFW_ABI_H
#define BPFW_ABI_H

#include <linux/types.h>

/* "bpfw", in the machine's byte order. Changes of this file that matter raise the version. */
#define BPFW_MAGIC       0x62706677
#define BPFW_ABI_VERSION 15

#define BPFW_HOOK_XDP 1
#define BPFW_HOOK_TC  2

/* How many next hops there can be; a power of two. */
#define BPFW_HOP_SLOTS 16384

/* How many (port, VLAN) pairs and egress devices the device maps hold; the daemon may say more. */
#define BPFW_LINK_SLOTS 4096

/* How many signals and refusals are kept; the least recently used give way. */
#define BPFW_NEW_CONN_SLOTS 4096
#define BPFW_REFUSED_SLOTS  65536

/* How many CPUs have counters of their own; those beyond share one row more. */
#define BPFW_COUNTING_CPUS 64

/* Room for each verdict, in whole cache lines of one CPU; a power of two. */
#define BPFW_COUNTERS 64

/*
 * How many interfaces have a time of their own in seen_map, by their indices' last bits; a power of
 * two.
 */
#define BPFW_SEEN_SLOTS 1024

/* The multiplier of seals and hashes; any odd number with its bits well spread will do. */
#define BPFW_FACTOR 0x9e3779b97f4a7c15ULL

/* In how many cells, one behind the other, a tuple may be; a power of two. */
#define BPFW_PROBES 4

/* Not 0 for IPv6, so that no packet of IPv4 ever equals the head of an entry of IPv6. */
#define BPFW_FAMILY_IPV4 0
#define BPFW_FAMILY_IPV6 6

/* What cells of both families begin with. */
struct bpfw_head {
	/* IPv6: together, the first half of the source address. */
	__be32 src_addr;
	__be32 dst_addr;
	__be16 src_port;
	__be16 dst_port;
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 family;   /* BPFW_FAMILY_* */
	__u16 idle;    /* IPv6, in cells only: as in struct bpfw_rewrite */
} __attribute__((aligned(8)));

/* One direction of a connection as conntrack knows it: the packet before any translation. */
struct bpfw_tuple {
	struct bpfw_head head;
	/* IPv6: the second half of the source address, then the destination. */
	__be32 more[6];
} __attribute__((aligned(8)));

#define BPFW_CONN_NAT   (1 << 0) /* addresses or ports change */
#define BPFW_CONN_PORTS (1 << 1) /* ports change */

/*
 * What becomes of a packet. The deltas are ones' complement sums in the machine's byte order. Ones'
 * complement has two zeros. The program itself adds ip_delta and l4_delta. Where they change
 * something but sum to zero, they are 0xffff, as in the kernel's arithmetic. So an l4_delta of 0
 * always means "nothing to change".
 */
struct bpfw_rewrite {
	__be32 src_addr;
	__be32 dst_addr;
	__be16 src_port;
	__be16 dst_port;
	__u16 ip_delta;   /* IPv4 header checksum: addresses, and the TTL step */
	__u16 addr_delta; /* L4 checksum: the pseudo header's addresses */
	__u16 port_delta; /* L4 checksum: the ports */
	__u16 l4_delta;   /* both of them; 0 without NAT */
	__u16 flags;      /* BPFW_CONN_* */
	__u16 idle;       /* idle_limit or the most there is; 0: never in the express lane */
} __attribute__((aligned(8)));

/*
 * The same for either family: as long a tuple as packets leave with. Value of translation_map,
 * which has what becomes of packets of IPv6 that are translated. There, ip_delta and idle are 0.
 *
 * A removed one's memory is used again at once, as a cell's is. The seal of the entry covers it.
 */
struct bpfw_translation {
	/* IPv6: src_addr and dst_addr are the first half of the source address. */
	struct bpfw_rewrite rewrite;
	/* IPv6: the second half of the source address, then the destination. */
	__be32 more[6];
} __attribute__((aligned(8)));

/*
 * Value of conn_cells: what each packet of one direction of an offloaded connection needs, in one
 * cache line. A free cell is all zeros: no protocol is 0.
 *
 * A removed entry's memory is used again at once, so a program may hold a pointer to what has
 * become another connection. That is what the seal is for. The program copies the rewrite, then
 * compares the seal over the packet's tuple and the copy. A mixture of two connections fails.
 *
 * After the insert the daemon writes only zeros, to free the cell.
 */
struct bpfw_cell {
	/* Written by the daemon before the insert, never changed. */
	struct bpfw_head head;
	/* IPv6: its tuple's other words. translation_map says what becomes of translated packets.
	 */
	struct bpfw_rewrite rewrite;
	/*
	 * Written by BPF. The hop word: hop slot << 32 | generation, stored by atomic operations
	 * only. It is 0 once the connection is found finished. The daemon inserts it with
	 * generation 0 and a number of this entry's own above. So a late compare and swap cannot
	 * hit the memory's next owner.
	 */
	__u64 hop_word;
	/* Written by BPF: packets << 32 | bytes of what was forwarded, see struct bpfw_rest. */
	__u64 volume;
	__u32 seal; /* by the daemon before the insert, never changed */
	/*
	 * Jiffies of the last packet that was forwarded, written by BPF; first by the daemon, and
	 * one less than passed_up then. The daemon removes an entry before this could mean a later
	 * time.
	 */
	__u32 last_seen;
};

#define BPFW_REST_REPLY   (1 << 0) /* this is the reply direction */
#define BPFW_REST_ASSURED (1 << 1) /* conntrack's ASSURED bit at the time of the insert */
#define BPFW_REST_NAT6    (1 << 2) /* IPv6, and translation_map has what becomes of its packets */

/* Value of conn_rests, under the number of the cell: what only the full lane and the daemon need.
 */
struct bpfw_rest {
	/* Written by BPF. */
	__u64 passed_up; /* jiffies64 of the last packet that went to the stack; first by the daemon
			  */
	/* Forwarded, together with the cell's volume, which the full lane adds to this in time. */
	__u64 packets;
	__u64 bytes; /* of IP packets, header included */
	/*
	 * Written by bpfw_egress, by one store: a keyed hash over what the stack did with a packet
	 * of this direction (bpf/proof.h). 0 if the stack has sent none yet.
	 */
	__u64 proof;
	/* Written by the program at ingress. */
	__u32 way_back; /* where answers would leave, as the last packet that asked has found */
	__u16 finished; /* FIN or RST was seen */
	/* Written by the daemon before the insert, never changed. */
	__u16 flags;      /* BPFW_REST_*, for the daemon only */
	__u32 pass_from;  /* jiffies from which packets go to the stack, 0: never */
	__u32 idle_limit; /* jiffies of silence after which a packet goes to the stack */
	__u32 id;         /* conntrack's id */
	__u32 mark;       /* conntrack's mark */
};

/*
 * Value of conn_map: one direction of an offloaded connection that found no free cell.
 *
 * The kernel adds 64 bytes, and its allocator 8. So 120 bytes are the most that fit in 192, which
 * are three cache lines.
 */
struct bpfw_conn {
	struct bpfw_cell cell;
	struct bpfw_rest rest;
};

/* Bytes in a cell's volume from which on they belong into its rest: half of what there is room for.
 */
#define BPFW_VOLUME_FULL 0x80000000

/* Value of new_conn_map: a connection that the daemon should look at. */
struct bpfw_signal {
	__u64 time; /* jiffies64 of the first packet, and BPFW_SIGNAL_SEGMENT */
	struct bpfw_tuple tuple;
};

/* Of a signal's time: the stack has just seen a segment of an offloaded TCP connection, no more. */
#define BPFW_SIGNAL_SEGMENT (1ULL << 63)

/* Key of link_map: where a frame came in. */
struct bpfw_link_key {
	__u32 ifindex;     /* the device at whose hook the program runs */
	__u16 vlan_id;     /* 0: untagged */
	__be16 vlan_proto; /* 0: untagged */
};

/* Value of link_map: the L3 interface that such a frame belongs to. */
struct bpfw_link {
	__u32 ifindex;
	__u32 ingress; /* what the stack takes it for once it is in: a VRF for its ports, else
			  ifindex */
	__u16 reserved;
	__u8 mac[6]; /* all zeros where there is no Ethernet header */
};

/* Room for the header in front of an IP packet: Ethernet, two VLAN tags, a PPPoE session. */
#define BPFW_L2_ROOM 30

/*
 * A next hop as each packet needs it, in one cache line: where packets come in, and how they leave.
 * Never changed. MAC addresses and headers begin two bytes after a multiple of four here, as they
 * do in packets.
 */
struct bpfw_hop_hot {
	struct bpfw_link_key from; /* where such packets come in */
	__u32 port;                /* device that the frame is handed to */
	__u32 mtu;                 /* largest IP packet */
	__u32 express_mtu; /* the same as mtu if the express lane may take such packets, or 0 */
	__u16 l2_len;      /* how much of l2 is the header: 14 or 18 bytes */
	__u8 from_mac[6];  /* the MAC address that such packets are sent to */
	__u16 reserved;
	__u8 l2[BPFW_L2_ROOM]; /* the new Ethernet header, tag included */
	__u32 reserved2;
};

/*
 * Key of hop_index: all of a next hop. Two neighbors may share a MAC address, so the address is
 * part of what tells next hops apart.
 */
struct bpfw_hop {
	struct bpfw_hop_hot hot;
	/* Packets do not need these: the daemon keeps the neighbor's entry in use. */
	__u32 egress; /* L3 interface */
	__u32 reserved;
	/* The next hop's address, IPv4's in the first word; 0 where there are no neighbors. */
	__be32 neighbor[4];
};

#define BPFW_EGRESS_REDIRECT  (1 << 0) /* the port takes redirected frames */
#define BPFW_EGRESS_NO_HEADER (1 << 1) /* packets leave without an Ethernet header */

/* Value of egress_map, by L3 interface: how a packet leaves through it. */
struct bpfw_egress {
	__u32 port;
	/* The smallest route mtu metric of this interface, or its own MTU. */
	__u32 mtu;
	__u32 mtu6; /* for IPv6 */
	__u16 vlan_id;
	__be16 vlan_proto;
	__u32 flags; /* BPFW_EGRESS_* */
	/* Counted by BPF, first 0: packets that the stack must send through it first; of packets
	 * that have left, those that still had a stamp.
	 */
	__u32 asked;
	__u32 stamped;
};

/* Generations grow from here; the numbers of periods are far smaller. */
#define BPFW_FIRST_GENERATION 0x80000000
/* The generation in a pause. Not 0: with a single period, the period's number is 0. So is the hop
 * word of a connection that has ended or not begun. */
#define BPFW_PAUSED 1

/*
 * Value of .data.topology, and what bpfw_set_generation takes. Its first half is written by one
 * store: a program that sees a new `current` sees the `policy` that belongs to it.
 */
struct bpfw_generation {
	__u32 current; /* grows with all that may send packets another way or nowhere */
	__u32 policy;  /* grows with all that decides whether the stack forwards packets */
	__u32 period;  /* how far jiffies are shifted to the right for the number of a period */
	__u32 reserved;
} __attribute__((aligned(8)));

/* Value of refused_map: a connection that the daemon will not offload for now. */
struct bpfw_refused {
	__u64 until; /* jiffies64 */
	__u32 reason;
	__u32 reserved;
};

/* Read-only settings, the whole of section .rodata.settings. */
struct bpfw_settings {
	__u32 magic;
	__u32 abi_version;
	__u32 hook;       /* BPFW_HOOK_* */
	__u32 log_level;  /* BPFW_LOG_* */
	__u32 beat_limit; /* jiffies after which a heartbeat is too old */
	__u32 route_mark; /* bits of conntrack's mark that packets are routed by, 0: none */
	__u64 seed;       /* key of the tuples' hash and of proofs; odd */
	__u32 first_mask; /* of the hash, what is the number of the first cell to look into */
	__u32 reserved;
};

#define BPFW_LOG_OFF   0
#define BPFW_LOG_INFO  1 /* changes: look-ups, connections found finished, signals */
#define BPFW_LOG_DEBUG 2 /* every packet's verdict */

/* What became of a packet, and why: the index of a CPU's counters. 0 is no verdict: "go on". */
enum bpfw_verdict {
	BPFW_GO_ON,
	BPFW_FORWARDED,
	BPFW_DROP_ERROR,       /* a helper failed on a packet already changed */
	BPFW_PASS_PAUSED,      /* the daemon has stopped the fast path for a moment */
	BPFW_PASS_HEARTBEAT,   /* the daemon is late */
	BPFW_PASS_SHORT,       /* the frame ends within a header */
	BPFW_PASS_TAGS,        /* more VLAN tags than one */
	BPFW_PASS_NOT_IP,      /* neither IPv4 nor IPv6 */
	BPFW_PASS_LINK,        /* no known L3 interface at this port and tag */
	BPFW_PASS_MAC,         /* not sent to this router */
	BPFW_PASS_IP_HEADER,   /* version, length or checksum of the IP header is wrong
				*/
	BPFW_PASS_IP_OPTIONS,  /* IPv4 options, IPv6 extension headers */
	BPFW_PASS_FRAGMENT,    /* a fragment */
	BPFW_PASS_PROTOCOL,    /* neither TCP nor UDP */
	BPFW_PASS_L4_HEADER,   /* header lengths of TCP or UDP are wrong */
	BPFW_PASS_UNKNOWN,     /* not an offloaded connection */
	BPFW_PASS_REFUSED,     /* a connection that the daemon refused */
	BPFW_PASS_REUSED,      /* the entry became another connection's meanwhile */
	BPFW_PASS_FINISHED,    /* the connection ends, or starts over */
	BPFW_PASS_UNASSURED,   /* UDP: conntrack must see a packet to call it a stream */
	BPFW_PASS_IDLE,        /* after a long silence: conntrack must see that it lives */
	BPFW_PASS_INGRESS,     /* it did not come in where it should */
	BPFW_PASS_TCP_FLAGS,   /* SYN, FIN, RST, or flags that conntrack calls invalid */
	BPFW_PASS_TTL,         /* the router must answer with an ICMP error */
	BPFW_PASS_TOO_BIG,     /* larger than the MTU */
	BPFW_PASS_PARTIAL_SUM, /* XDP: the sender left the L4 checksum to the hardware */
	BPFW_PASS_NO_ROUTE,    /* the route look-up gave no next hop */
	BPFW_PASS_NO_NEIGHBOR, /* the next hop's MAC address is not known */
	BPFW_PASS_EGRESS,      /* the egress interface cannot be redirected to */
	BPFW_PASS_UNPROVEN,    /* the stack must send a packet of this direction first */
	BPFW_PASS_HOPS_FULL,   /* no free slot for a new next hop */
	BPFW_PASS_RESIZE,      /* no room for the new header */
	BPFW_PASS_SAME_LINK,   /* out where it came in: the stack may send an ICMP redirect */
	BPFW_VERDICTS
};

/*
 * What bpfw_egress makes of a packet that carries a stamp; these counters stand behind those of the
 * verdicts.
 */
enum bpfw_testimony {
	BPFW_PROVEN = BPFW_VERDICTS, /* the stack has sent it: a proof */
	BPFW_STAMP_OLD,              /* something changed while it was on its way */
	BPFW_NO_TESTIMONY,           /* of no offloaded connection, or no plain packet of one */
	BPFW_TESTIMONIES
};

#define BPFW_SIZE_IS(type, size)                                                                   \
	_Static_assert(sizeof(struct type) == (size), "the layout of " #type " has changed")

BPFW_SIZE_IS(bpfw_head, 16);
BPFW_SIZE_IS(bpfw_tuple, 40);
BPFW_SIZE_IS(bpfw_rewrite, 24);
BPFW_SIZE_IS(bpfw_translation, 48);
BPFW_SIZE_IS(bpfw_cell, 64);
BPFW_SIZE_IS(bpfw_rest, 56);
BPFW_SIZE_IS(bpfw_conn, 120);
BPFW_SIZE_IS(bpfw_signal, 48);
BPFW_SIZE_IS(bpfw_hop_hot, 64);
BPFW_SIZE_IS(bpfw_hop, 88);
BPFW_SIZE_IS(bpfw_link_key, 8);
BPFW_SIZE_IS(bpfw_link, 16);
BPFW_SIZE_IS(bpfw_egress, 28);
BPFW_SIZE_IS(bpfw_generation, 16);
BPFW_SIZE_IS(bpfw_refused, 16);
BPFW_SIZE_IS(bpfw_settings, 40);

_Static_assert(__builtin_offsetof(struct bpfw_hop_hot, from_mac) % 4 == 2 &&
		       __builtin_offsetof(struct bpfw_hop_hot, l2) % 4 == 2,
	       "two bytes after a multiple of four");
_Static_assert(BPFW_TESTIMONIES <= BPFW_COUNTERS, "each verdict and testimony has a counter");

#endif
