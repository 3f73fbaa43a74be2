/* SPDX-License-Identifier: GPL-2.0-only */
/* What the generator is to do; benches/packets/plan.rs writes it, word by word. */
#ifndef PLAN_H
#define PLAN_H

#include "packet.h"

/* A connection's number gives its port and, where these run out, the next host. */
#define PLAN_PORTS      32768
#define PLAN_FIRST_PORT 32768
#define PLAN_SERVICE    9

#define PLAN_IPV4 4
#define PLAN_IPV6 6

/* What becomes of a frame once it is written. */
#define PLAN_DROP     0
#define PLAN_PASS     1
#define PLAN_REDIRECT 2
#define PLAN_CALL     3

struct plan {
	__u32 action;
	__u32 egress; /* of PLAN_REDIRECT */
	__u32 frame_len;
	__u32 protocol;
	__u32 connections;
	__u32 stride;
	__u32 position;   /* the next connection; the generator's own */
	__u32 reply;      /* the ports change places */
	__u32 src;        /* in the machine's byte order */
	__u32 src_varies; /* a connection's host number is added */
	__u32 dst;
	__u32 dst_varies;
	__u32 tcp_flags;
	__u32 seq;
	__u32 ack;
	__u32 payload_sum; /* ones' complement, of words in network byte order */
	__u32 family;      /* PLAN_IPV4 or PLAN_IPV6 */
	__u32 net[3];      /* of IPv6: what both addresses begin with; src and dst are their ends */
	__u16 reserved;
	__u8 eth[14]; /* the Ethernet header, two bytes after a multiple of four as in packets */
	/* Counted by the generator: the time between two frames is what is measured. */
	__u32 sent;
	__u32 first;
	__u32 last;
	__u32 reserved2;
	__u64 began; /* CLOCK_MONOTONIC */
	__u64 ended;
};

_Static_assert(sizeof(struct plan) == 128, "as plan.rs writes it");

struct plan plan SEC(".data.plan");

#endif
