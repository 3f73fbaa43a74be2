/* SPDX-License-Identifier: GPL-2.0-only */
/* TCP and UDP: the lengths that conntrack checks are checked here alike. */
#ifndef PARSE_L4_H
#define PARSE_L4_H

#include "ip.h"
#include "packet.h"

static __always_inline int parse_tcp(struct packet *pkt, __u32 l4_len)
{
	struct tcp_header *tcp = ip_l4(pkt);

	if (l4_len < sizeof(*tcp))
		return BPFW_PASS_L4_HEADER;
	if ((__u8 *)(tcp + 1) > pkt->end)
		return BPFW_PASS_SHORT;
	if (tcp_header_len(tcp) < sizeof(*tcp) || tcp_header_len(tcp) > l4_len)
		return BPFW_PASS_L4_HEADER;
	note_ports(pkt, (void *)tcp);
	pkt->tcp_flags = tcp->flags;
	return BPFW_GO_ON;
}

static __always_inline int parse_udp(struct packet *pkt, __u32 l4_len)
{
	struct udp_header *udp = ip_l4(pkt);
	__u32 udp_len;

	if (l4_len < sizeof(*udp))
		return BPFW_PASS_L4_HEADER;
	if ((__u8 *)(udp + 1) > pkt->end)
		return BPFW_PASS_SHORT;
	udp_len = bpf_ntohs(udp->len);
	if (udp_len < sizeof(*udp) || udp_len > l4_len)
		return BPFW_PASS_L4_HEADER;
	note_ports(pkt, (void *)udp);
	return BPFW_GO_ON;
}

static __always_inline int parse_l4(struct packet *pkt)
{
	__u32 l4_len = ip_l4_len(pkt);

	switch (pkt->tuple->head.protocol) {
	case IPPROTO_TCP:
		return parse_tcp(pkt, l4_len);
	case IPPROTO_UDP:
		return parse_udp(pkt, l4_len);
	default:
		return BPFW_PASS_PROTOCOL;
	}
}

/* Where the L4 checksum is, behind all other headers' fields that change. */
static __always_inline __u16 *l4_check(const struct packet *pkt)
{
	struct tcp_header *tcp = ip_l4(pkt);
	struct udp_header *udp = ip_l4(pkt);

	return pkt->tuple->head.protocol == IPPROTO_TCP ? &tcp->check : &udp->check;
}

/*
 * Only a plain segment of an established connection is ours: ACK set, and no SYN, FIN or RST.
 * Segments without ACK are what conntrack's tcp_valid_flags refuses.
 */
static __always_inline int is_plain_segment(__u8 tcp_flags)
{
	return (tcp_flags & (TCPHDR_SYN | TCPHDR_FIN | TCPHDR_RST | TCPHDR_ACK)) == TCPHDR_ACK;
}

#endif
