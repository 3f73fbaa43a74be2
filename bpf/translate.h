/* SPDX-License-Identifier: GPL-2.0-only */
/* The rewrite of the IPv4, TCP and UDP headers. */
#ifndef TRANSLATE_H
#define TRANSLATE_H

#include "checksum.h"
#include "connection.h"
#include "packet.h"

/* The IPv4 header and the ports; the hook has seen to the L4 checksum. */
static __always_inline int translate(struct packet *pkt, const struct bpfw_rewrite *rewrite)
{
	struct ipv4_header *ip = (void *)pkt->l3;
	struct l4_ports *ports = (void *)(ip + 1);

	if ((__u8 *)(ports + 1) > pkt->end)
		return BPFW_DROP_ERROR;
	ip->ttl = pkt->ttl - 1;
	ip->check = update(ip->check, rewrite->ip_delta);
	if (rewrite->flags & BPFW_CONN_NAT) {
		ip->src = rewrite->src_addr;
		ip->dst = rewrite->dst_addr;
		ports->both = *(const __u32 *)&rewrite->src_port;
	}
	return BPFW_GO_ON;
}

#endif
