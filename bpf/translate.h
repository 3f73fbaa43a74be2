/* SPDX-License-Identifier: GPL-2.0-only */
/* The rewrite of the IPv4, TCP and UDP headers. */
#ifndef TRANSLATE_H
#define TRANSLATE_H

#include "checksum.h"
#include "connection.h"
#include "packet.h"

/*
 * The IPv4 header and the ports; the hook has seen to the L4 checksum, and that all is readable.
 * Without NAT they are what they were.
 */
static __always_inline void translate(struct packet *pkt, const struct bpfw_rewrite *rewrite)
{
	struct ipv4_header *ip = (void *)pkt->l3;
	struct l4_ports *ports = (void *)(ip + 1);

	ip->ttl -= 1;
	ip->check = update(ip->check, rewrite->ip_delta);
	ip->saddr = rewrite->src_addr;
	ip->daddr = rewrite->dst_addr;
	ports->both = *(const __u32 *)&rewrite->src_port;
}

#endif
