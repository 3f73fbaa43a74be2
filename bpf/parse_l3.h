/* SPDX-License-Identifier: GPL-2.0-only */
/* IPv4: what ip_rcv would drop, and what only the stack can handle, is passed up. */
#ifndef PARSE_L3_H
#define PARSE_L3_H

#include "checksum.h"
#include "packet.h"

static __always_inline int parse_l3(struct packet *pkt, __u64 frame_len)
{
	struct ipv4_header *ip = (void *)pkt->l3;

	if ((__u8 *)(ip + 1) > pkt->end)
		return BPFW_PASS_SHORT;
	if (ip->version_ihl != IPV4_VERSION_IHL) {
		if ((ip->version_ihl & 0xf0) == 0x40 && ip->version_ihl > IPV4_VERSION_IHL)
			return BPFW_PASS_IP_OPTIONS;
		return BPFW_PASS_IP_HEADER;
	}
	pkt->ip_len = bpf_ntohs(ip->tot_len);
	if (pkt->ip_len < sizeof(*ip) || pkt->ip_len > frame_len - pkt->l2_len ||
	    !ipv4_checksum_ok(ip))
		return BPFW_PASS_IP_HEADER;
	if (ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
		return BPFW_PASS_FRAGMENT;
	pkt->tos = ip->tos;
	pkt->ttl = ip->ttl;
	note_addresses(pkt, ip);
	return BPFW_GO_ON;
}

#endif
