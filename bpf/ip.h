/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One name for what ipv4.h and ipv6.h each have. The family is a constant of the entry point, and
 * everything is inlined: the compiler drops what the other family needs.
 */
#ifndef IP_H
#define IP_H

#include "ipv4.h"
#include "ipv6.h"
#include "packet.h"

/*
 * A packet of the family that this function was not made for: the entry point calls the other one.
 * No verdict, no action of a hook and no stamp.
 */
#define OTHER_FAMILY (1 << 16)

static __always_inline int is_ipv6(const struct packet *pkt)
{
	return pkt->family == BPFW_FAMILY_IPV6;
}

static __always_inline __be16 ip_type(const struct packet *pkt)
{
	return is_ipv6(pkt) ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
}

static __always_inline __u8 ip_address_family(const struct packet *pkt)
{
	return is_ipv6(pkt) ? AF_INET6 : AF_INET;
}

/* Functions made for IPv4 come first, and say whether those for IPv6 are to be called. */
static __always_inline int check_type(const struct packet *pkt, __be16 type)
{
	/* Or Clang compares with the other family's first. */
	if (__builtin_expect(type == ip_type(pkt), 1))
		return BPFW_GO_ON;
	if (!is_ipv6(pkt) && type == bpf_htons(ETH_P_IPV6))
		return OTHER_FAMILY;
	return BPFW_PASS_NOT_IP;
}

static __always_inline void *ip_l4(const struct packet *pkt)
{
	return is_ipv6(pkt) ? ipv6_l4(pkt) : ipv4_l4(pkt);
}

static __always_inline __u64 ip_l4_len(const struct packet *pkt)
{
	return is_ipv6(pkt) ? ipv6_l4_len(pkt) : ipv4_l4_len(pkt);
}

static __always_inline __u32 ip_segment_len(const struct packet *pkt, __u32 l4_header_len,
					    __u32 payload_len)
{
	return is_ipv6(pkt) ? ipv6_segment_len(l4_header_len, payload_len)
			    : ipv4_segment_len(l4_header_len, payload_len);
}

/* What the header, which must be readable, says of the next one. */
static __always_inline __u8 ip_protocol(const struct packet *pkt)
{
	return is_ipv6(pkt) ? read_byte(&((const struct ipv6_header *)pkt->l3)->nexthdr)
			    : read_byte(&((const struct ipv4_header *)pkt->l3)->protocol);
}

static __always_inline int ip_parse(struct packet *pkt, __u64 frame_len)
{
	return is_ipv6(pkt) ? ipv6_parse(pkt, frame_len) : ipv4_parse(pkt, frame_len);
}

static __always_inline int ip_read_len(struct packet *pkt)
{
	return is_ipv6(pkt) ? ipv6_read_len(pkt) : ipv4_read_len(pkt);
}

static __always_inline int ip_parse_plain(struct packet *pkt)
{
	return is_ipv6(pkt) ? ipv6_parse_plain(pkt) : ipv4_parse_plain(pkt);
}

static __always_inline void ip_note_protocol(struct packet *pkt, __u8 protocol)
{
	if (is_ipv6(pkt))
		ipv6_note_protocol(pkt, protocol);
	else
		ipv4_note_protocol(pkt, protocol);
}

static __always_inline int ip_looks_partial(const struct packet *pkt, __u8 protocol, __u64 check)
{
	return is_ipv6(pkt) ? ipv6_looks_partial(pkt, protocol, check)
			    : ipv4_looks_partial(pkt, protocol, check);
}

static __always_inline __u64 ip_hash(const __u8 family, const struct bpfw_tuple *tuple)
{
	return family == BPFW_FAMILY_IPV6 ? ipv6_hash(tuple) : ipv4_hash(tuple);
}

static __always_inline int ip_is_of(const __u8 family, const struct bpfw_cell *cell,
				    const struct bpfw_tuple *tuple)
{
	return family == BPFW_FAMILY_IPV6 ? ipv6_is_of(cell, tuple) : ipv4_is_of(cell, tuple);
}

/* The most jiffies of silence after which the express lane takes a packet. */
static __always_inline __u16 ip_idle(const __u8 family, const struct bpfw_cell *cell)
{
	return family == BPFW_FAMILY_IPV6 ? cell->head.idle : cell->rewrite.idle;
}

static __always_inline void ip_reverse_tuple(const __u8 family, const struct bpfw_tuple *tuple,
					     struct bpfw_tuple *reverse)
{
	if (family == BPFW_FAMILY_IPV6)
		ipv6_reverse_tuple(tuple, reverse);
	else
		ipv4_reverse_tuple(tuple, reverse);
}

/* The tuple of the answers to packets that come in with this tuple. */
static __always_inline void ip_reverse_rewritten(const __u8 family, const struct bpfw_tuple *tuple,
						 const struct bpfw_translation *translation,
						 struct bpfw_tuple *reverse)
{
	if (family == BPFW_FAMILY_IPV6)
		ipv6_reverse_rewritten(translation, tuple->head.protocol, reverse);
	else
		ipv4_reverse_rewritten(&translation->rewrite, tuple->head.protocol, reverse);
}

/*
 * Whether the stack tells no sender of a shorter way than back where a packet came in. So it is
 * where IPv4 is translated (nf_nat_icmp_reply_translation). Of IPv6 that depends on whether
 * conntrack takes the redirect for part of a connection, which older kernels do not.
 */
static __always_inline int ip_hides_redirects(const struct packet *pkt,
					      const struct bpfw_translation *translation)
{
	return !is_ipv6(pkt) && ipv4_is_translated(pkt->tuple, &translation->rewrite);
}

static __always_inline void ip_translate(struct packet *pkt,
					 const struct bpfw_translation *translation)
{
	if (is_ipv6(pkt))
		ipv6_translate(pkt, translation);
	else
		ipv4_translate(pkt, &translation->rewrite);
}

static __always_inline void ip_ask_forward(struct bpf_fib_lookup *fib, const struct packet *pkt,
					   const struct bpfw_translation *translation,
					   __u32 ifindex)
{
	if (is_ipv6(pkt))
		ipv6_ask_forward(fib, pkt, translation, ifindex);
	else
		ipv4_ask_forward(fib, pkt, &translation->rewrite, ifindex);
}

static __always_inline void ip_ask_back(struct bpf_fib_lookup *fib, const struct packet *pkt,
					const struct bpfw_translation *translation, __u32 ifindex)
{
	if (is_ipv6(pkt))
		ipv6_ask_back(fib, pkt, translation, ifindex);
	else
		ipv4_ask_back(fib, pkt, &translation->rewrite, ifindex);
}

/* An interface's MTU for this family. */
static __always_inline __u32 ip_mtu(const struct packet *pkt, const struct bpfw_egress *egress)
{
	return is_ipv6(pkt) ? egress->mtu6 : egress->mtu;
}

/* The next hop's address, as a look-up has answered it. */
static __always_inline void ip_note_neighbor(const struct packet *pkt, struct bpfw_hop *hop,
					     const struct bpf_fib_lookup *fib)
{
	const int words = is_ipv6(pkt) ? 4 : 1;

#pragma unroll
	for (int i = 0; i < words; i++)
		hop->neighbor[i] = fib->ipv6_dst[i];
}

static __always_inline void ip_forget_neighbor(const struct packet *pkt, struct bpf_fib_lookup *fib)
{
	const int words = is_ipv6(pkt) ? 4 : 1;

#pragma unroll
	for (int i = 0; i < words; i++)
		fib->ipv6_dst[i] = 0;
}

#endif
