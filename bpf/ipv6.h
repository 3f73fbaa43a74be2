/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that is special about IPv6, as ipv4.h for IPv4. Most connections are not translated: a packet
 * leaves with its own tuple, and only the hop limit changes. That is part of no checksum. An entry
 * has no room for more: translation_map has what becomes of the others.
 */
#ifndef IPV6_H
#define IPV6_H

#include "checksum.h"
#include "packet.h"
#include "settings.h"

#define AF_INET6         10
#define NEXTHDR_HOP      0
#define NEXTHDR_ROUTING  43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_AUTH     51
#define NEXTHDR_DEST     60
#define NEXTHDR_MOBILITY 135

/* As in the kernel: traffic class and flow label. */
#define IPV6_FLOWINFO_MASK 0x0fffffff

/* The TCP or UDP header; there are no extension headers. */
static __always_inline void *ipv6_l4(const struct packet *pkt)
{
	return pkt->l3 + sizeof(struct ipv6_header);
}

static __always_inline __u64 ipv6_l4_len(const struct packet *pkt)
{
	return pkt->ip_len - sizeof(struct ipv6_header);
}

/* The length of a packet with this much behind its TCP or UDP header. */
static __always_inline __u32 ipv6_segment_len(__u32 l4_header_len, __u32 payload_len)
{
	return sizeof(struct ipv6_header) + l4_header_len + payload_len;
}

/* The protocol, the family and the reserved bytes in one word. */
static __always_inline void ipv6_note_protocol(struct packet *pkt, __u8 protocol)
{
	const int big_endian = bpf_htons(1) == 1;

	*(__u32 *)&pkt->tuple->head.protocol = big_endian ? (__u32)protocol << 24 | BPFW_FAMILY_IPV6
											    << 16
							  : (__u32)protocol | BPFW_FAMILY_IPV6 << 8;
}

static __always_inline void ipv6_note_addresses(struct packet *pkt, const struct ipv6_header *ip)
{
	struct bpfw_tuple *tuple = pkt->tuple;

	tuple->head.src_addr = ip->saddr[0];
	tuple->head.dst_addr = ip->saddr[1];
	tuple->more[0] = ip->saddr[2];
	tuple->more[1] = ip->saddr[3];
#pragma unroll
	for (int i = 0; i < 4; i++)
		tuple->more[2 + i] = ip->daddr[i];
}

/* What no TCP or UDP header can follow directly, or what is not checked here. */
static __always_inline int ipv6_check_next_header(__u8 nexthdr)
{
	switch (nexthdr) {
	case NEXTHDR_FRAGMENT:
		return BPFW_PASS_FRAGMENT;
	case NEXTHDR_HOP:
	case NEXTHDR_ROUTING:
	case NEXTHDR_AUTH:
	case NEXTHDR_DEST:
	case NEXTHDR_MOBILITY:
		return BPFW_PASS_IP_OPTIONS;
	default:
		return BPFW_GO_ON;
	}
}

/*
 * A payload length of 0 announces a jumbogram, whose length is in an extension header. The express
 * lane comes first: ipv6_parse_plain() must refuse the same.
 */
static __always_inline int ipv6_parse(struct packet *pkt, __u64 frame_len)
{
	struct ipv6_header *ip = (void *)pkt->l3;
	int verdict;

	if ((__u8 *)(ip + 1) > pkt->end)
		return BPFW_PASS_SHORT;
	if ((ip->flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000))
		return BPFW_PASS_IP_HEADER;
	pkt->ip_len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (!ip->payload_len || pkt->ip_len > frame_len - pkt->l2_len)
		return BPFW_PASS_IP_HEADER;
	verdict = ipv6_check_next_header(ip->nexthdr);
	if (verdict)
		return verdict;
	pkt->flow = ip->flow & bpf_htonl(IPV6_FLOWINFO_MASK);
	pkt->ttl = ip->hop_limit;
	ipv6_note_addresses(pkt, ip);
	ipv6_note_protocol(pkt, ip->nexthdr);
	return BPFW_GO_ON;
}

static __always_inline void ipv6_note_len(struct packet *pkt)
{
	const struct ipv6_header *ip = (const void *)pkt->l3;

	pkt->ip_len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
}

/*
 * The express lane, as in ipv4.h. First the packet's length; false if the version is wrong. A
 * payload length of 0 leaves no room for a TCP or UDP header.
 */
static __always_inline int ipv6_read_len(struct packet *pkt)
{
	const struct ipv6_header *ip = (const void *)pkt->l3;

	if ((*(const __u8 *)ip & 0xf0) != 0x60)
		return 0;
	ipv6_note_len(pkt);
	return 1;
}

/*
 * All else. Two words of 32 bits at a time: behind an Ethernet header without a tag, addresses
 * begin at a multiple of eight bytes as much as other fields at one of four.
 */
static __always_inline int ipv6_parse_plain(struct packet *pkt)
{
	const struct ipv6_header *ip = (const void *)pkt->l3;
	const __u64 *from = (const __u64 *)ip->saddr;
	__u64 *more = (__u64 *)pkt->tuple->more;

	if (ip->hop_limit <= 1)
		return 0;
	*(__u64 *)&pkt->tuple->head = from[0];
#pragma unroll
	for (int i = 0; i < 3; i++)
		more[i] = from[1 + i];
	return 1;
}

/*
 * Whether the L4 checksum is what a sender leaves who expects the hardware to complete it, as in
 * ipv4.h. The pseudo header has its sum added once more, as 0: addresses like ::1 could be less
 * than the checksum.
 */
static __always_inline int ipv6_looks_partial(const struct packet *pkt, __u8 protocol, __u64 check)
{
	const struct ipv6_header *ip = (const void *)pkt->l3;
	__u64 sum = ip->payload_len;

	if (!check)
		return 0;
#pragma unroll
	for (int i = 0; i < 4; i++)
		sum += read_half(&ip->saddr[i]) + read_half(&ip->daddr[i]);
	sum += 0xffff + bpf_htons(protocol) - check;
	opaque(sum);
	return is_ones_complement_zero(sum);
}

/* A tuple as five words: half of the source, the ports with protocol and family, all else. */
static __always_inline const __u64 *ipv6_words(const struct bpfw_tuple *tuple)
{
	return (const __u64 *)tuple;
}

/*
 * The halves of the sum, multiplied. Both factors are secret, so nobody can choose words that undo
 * each other's difference. In a product with a known factor the highest bit would stay where it is.
 */
static __always_inline __u64 hash_step(__u64 hash, __u64 word)
{
	__u64 sum = hash + word;

	return (sum & 0xffffffff) * (sum >> 32);
}

/* The ports are last, and low, as in ipv4_hash(). */
static __always_inline __u64 ipv6_hash(const struct bpfw_tuple *tuple)
{
	const __u64 *words = ipv6_words(tuple);
	__u64 seed = settings.seed, hash = hash_step(seed, words[0]);

#pragma unroll
	for (int i = 2; i < 5; i++)
		hash = hash_step(hash, words[i]);
	return (hash + le64_to_cpu(words[1])) * seed;
}

/* A cell's second word without the idle limit, which is no part of a tuple. */
static __always_inline __u64 ipv6_without_idle(__u64 word)
{
	return bpf_htons(1) == 1 ? word >> 16 : word << 16;
}

/* Whether this cell is the tuple's. Volatile: another connection may take it at any time. */
static __always_inline int ipv6_is_of(const struct bpfw_cell *cell, const struct bpfw_tuple *tuple)
{
	const volatile __u64 *found = (const volatile __u64 *)cell;
	const __u64 *words = ipv6_words(tuple);

	return found[0] == words[0] && !ipv6_without_idle(found[1] ^ words[1]) &&
	       found[2] == words[2] && found[3] == words[3] && found[4] == words[4];
}

/*
 * What the seal must be: the packet's tuple is in the hash, so a cell with words of two connections
 * has no seal that fits.
 */
static __always_inline __u32 ipv6_seal(__u64 hash, const struct bpfw_cell *cell)
{
	return (hash + *(const volatile __u16 *)&cell->head.idle) * BPFW_FACTOR >> 32;
}

/* The tuple of the answers to packets with this tuple. */
static __always_inline void ipv6_reverse_tuple(const struct bpfw_tuple *tuple,
					       struct bpfw_tuple *reverse)
{
	*reverse = (struct bpfw_tuple){
		.head.src_addr = tuple->more[2],
		.head.dst_addr = tuple->more[3],
		.head.src_port = tuple->head.dst_port,
		.head.dst_port = tuple->head.src_port,
		.head.protocol = tuple->head.protocol,
		.head.family = BPFW_FAMILY_IPV6,
		.more = {tuple->more[4], tuple->more[5], tuple->head.src_addr, tuple->head.dst_addr,
			 tuple->more[0], tuple->more[1]},
	};
}

/* The translation of a packet that leaves as it came in. */
static __always_inline void ipv6_keep(const struct bpfw_tuple *tuple,
				      struct bpfw_translation *translation)
{
	const __u64 *from = ipv6_words(tuple);
	__u64 *to = (__u64 *)translation;

	to[0] = from[0];
	to[1] = to[2] = 0;
	*(__u32 *)&translation->rewrite.src_port = *(const __u32 *)&tuple->head.src_port;
#pragma unroll
	for (int i = 0; i < 3; i++)
		to[3 + i] = from[2 + i];
}

/* The tuple of the answers to packets that leave like this. */
static __always_inline void ipv6_reverse_rewritten(const struct bpfw_translation *translation,
						   __u8 protocol, struct bpfw_tuple *reverse)
{
	const struct bpfw_rewrite *rewrite = &translation->rewrite;
	const __be32 *more = translation->more;

	*reverse = (struct bpfw_tuple){
		.head.src_addr = more[2],
		.head.dst_addr = more[3],
		.head.src_port = rewrite->dst_port,
		.head.dst_port = rewrite->src_port,
		.head.protocol = protocol,
		.head.family = BPFW_FAMILY_IPV6,
		.more = {more[4], more[5], rewrite->src_addr, rewrite->dst_addr, more[0], more[1]},
	};
}

/* The hook has seen to the L4 checksum, and that all is readable. */
static __always_inline void ipv6_translate(struct packet *pkt,
					   const struct bpfw_translation *translation)
{
	const struct bpfw_rewrite *rewrite = &translation->rewrite;
	struct ipv6_header *ip = (void *)pkt->l3;
	struct l4_ports *ports = ipv6_l4(pkt);

	ip->hop_limit -= 1;
	if (!(rewrite->flags & BPFW_CONN_NAT))
		return;
	ip->saddr[0] = rewrite->src_addr;
	ip->saddr[1] = rewrite->dst_addr;
	ip->saddr[2] = translation->more[0];
	ip->saddr[3] = translation->more[1];
#pragma unroll
	for (int i = 0; i < 4; i++)
		ip->daddr[i] = translation->more[2 + i];
	ports->both = *(const __u32 *)&rewrite->src_port;
}

/* As for IPv4: the destination is translated before the routing decision, the source after it. */
static __always_inline void ipv6_ask_forward(struct bpf_fib_lookup *fib, const struct packet *pkt,
					     const struct bpfw_translation *translation,
					     __u32 ifindex)
{
	const struct bpfw_tuple *tuple = pkt->tuple;
	const __be32 *to = &translation->more[2];

	*fib = (struct bpf_fib_lookup){
		.family = AF_INET6,
		.l4_protocol = tuple->head.protocol,
		.sport = tuple->head.src_port,
		.dport = translation->rewrite.dst_port,
		.tot_len = ASK_FOR_MTU,
		.ifindex = ifindex,
		.flowinfo = pkt->flow,
		.ipv6_src = {tuple->head.src_addr, tuple->head.dst_addr, tuple->more[0],
			     tuple->more[1]},
		.ipv6_dst = {to[0], to[1], to[2], to[3]},
	};
}

/* The same, with source and destination in each other's place. */
static __always_inline void ipv6_ask_back(struct bpf_fib_lookup *fib, const struct packet *pkt,
					  const struct bpfw_translation *translation, __u32 ifindex)
{
	const struct bpfw_tuple *tuple = pkt->tuple;
	const __be32 *to = &translation->more[2];

	*fib = (struct bpf_fib_lookup){
		.family = AF_INET6,
		.l4_protocol = tuple->head.protocol,
		.sport = translation->rewrite.dst_port,
		.dport = tuple->head.src_port,
		.tot_len = ASK_FOR_MTU,
		.ifindex = ifindex,
		.flowinfo = pkt->flow,
		.ipv6_src = {to[0], to[1], to[2], to[3]},
		.ipv6_dst = {tuple->head.src_addr, tuple->head.dst_addr, tuple->more[0],
			     tuple->more[1]},
	};
}

#endif
