/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that is special about IPv4: how its packets are read and rewritten, which words of an entry
 * hold its tuple, what routing is asked. ip.h chooses between this and ipv6.h.
 */
#ifndef IPV4_H
#define IPV4_H

#include "checksum.h"
#include "packet.h"
#include "settings.h"

/* As in headers of the kernel that are not UAPI. */
#define AF_INET   2
#define IP_MF     0x2000
#define IP_OFFSET 0x1fff

/* The TCP or UDP header; there are no options. */
static __always_inline void *ipv4_l4(const struct packet *pkt)
{
	return pkt->l3 + sizeof(struct ipv4_header);
}

static __always_inline __u64 ipv4_l4_len(const struct packet *pkt)
{
	return pkt->ip_len - sizeof(struct ipv4_header);
}

static __always_inline __u8 ipv4_tos(const struct packet *pkt)
{
	return ((const struct ipv4_header *)pkt->l3)->tos;
}

/* The length of a packet with this much behind its TCP or UDP header. */
static __always_inline __u32 ipv4_segment_len(__u32 l4_header_len, __u32 payload_len)
{
	return sizeof(struct ipv4_header) + l4_header_len + payload_len;
}

static __always_inline int ipv4_checksum_ok(const struct ipv4_header *ip)
{
	const __u32 *words = (const __u32 *)ip;
	__u64 sum = 0;

	/* Never 0: the version is part of it. */
#pragma unroll
	for (int i = 0; i < 5; i++)
		sum += words[i];
	return is_ones_complement_zero(sum);
}

/* The protocol and the reserved bytes in one word. */
static __always_inline void ipv4_note_protocol(struct packet *pkt, __u8 protocol)
{
	const int shift = bpf_htons(1) == 1 ? 24 : 0;

	*(__u32 *)&pkt->tuple->head.protocol = (__u32)protocol << shift;
}

static __always_inline void ipv4_note_addresses(struct packet *pkt, const struct ipv4_header *ip)
{
	pkt->tuple->head.src_addr = ip->saddr;
	pkt->tuple->head.dst_addr = ip->daddr;
}

/*
 * Passes up what ip_rcv would drop, and what only the stack can handle. The express lane comes
 * first: ipv4_parse_plain() must refuse the same.
 */
static __always_inline int ipv4_parse(struct packet *pkt, __u64 frame_len)
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
	pkt->flow = ip->tos;
	pkt->ttl = ip->ttl;
	ipv4_note_addresses(pkt, ip);
	ipv4_note_protocol(pkt, ip->protocol);
	return BPFW_GO_ON;
}

/*
 * The express lane: as ipv4_parse() and check_size(), without saying what is wrong. The caller has
 * made sure that the header can be read. First the packet's length; false if there are options.
 */
static __always_inline int ipv4_read_len(struct packet *pkt)
{
	const struct ipv4_header *ip = (const void *)pkt->l3;

	if (ip->version_ihl != IPV4_VERSION_IHL)
		return 0;
	pkt->ip_len = bpf_ntohs(ip->tot_len);
	return 1;
}

/* All else, once the caller has compared the length. */
static __always_inline int ipv4_parse_plain(struct packet *pkt)
{
	const struct ipv4_header *ip = (const void *)pkt->l3;

	if (!ipv4_checksum_ok(ip) || (ip->frag_off & bpf_htons(IP_MF | IP_OFFSET)) ||
	    read_byte(&ip->ttl) <= 1)
		return 0;
	ipv4_note_addresses(pkt, ip);
	return 1;
}

/*
 * Whether the L4 checksum is what a sender leaves who expects the hardware to complete it: the
 * pseudo header's sum. One packet in 65,535 looks like it by chance and takes the slow way.
 *
 * Modulo 0xffff, bytes may be swapped after a subtraction as well as before. 0xffff is 0 there: it
 * is added twice, for both subtractions, so that the sum stays above 0.
 */
static __always_inline int ipv4_looks_partial(const struct packet *pkt, __u8 protocol, __u64 check)
{
	const struct ipv4_header *ip = (const void *)pkt->l3;
	__u64 sum = (__u64)ip->saddr + ip->daddr + ip->tot_len - check;

	sum += 2 * 0xffff - bpf_htons(sizeof(*ip)) + bpf_htons(protocol);
	/* Clang would add the constant behind the multiplication, as one of 64 bits. */
	opaque(sum);
	return check && is_ones_complement_zero(sum);
}

/* A tuple as two words, without bytes in between. */
static __always_inline const __u64 *ipv4_words(const struct bpfw_tuple *tuple)
{
	return (const __u64 *)tuple;
}

/* A product's bits depend on lower ones alone: the ports are to be low in either byte order. */
static __always_inline __u64 ipv4_hash(const struct bpfw_tuple *tuple)
{
	const __u64 *words = ipv4_words(tuple);
	__u64 seed = settings.seed, hash = (words[0] ^ seed) * BPFW_FACTOR;

	return ((hash ^ hash >> 32) + le64_to_cpu(words[1])) * seed;
}

/* Whether this cell is the tuple's. Volatile: another connection may take it at any time. */
static __always_inline int ipv4_is_of(const struct bpfw_cell *cell, const struct bpfw_tuple *tuple)
{
	const volatile __u64 *found = (const volatile __u64 *)cell;
	const __u64 *words = ipv4_words(tuple);

	return found[0] == words[0] && found[1] == words[1];
}

/* The tuple of the answers to packets that leave with this tuple. */
static __always_inline void ipv4_reverse_tuple(const struct bpfw_tuple *tuple,
					       struct bpfw_tuple *reverse)
{
	*reverse = (struct bpfw_tuple){
		.head.src_addr = tuple->head.dst_addr,
		.head.dst_addr = tuple->head.src_addr,
		.head.src_port = tuple->head.dst_port,
		.head.dst_port = tuple->head.src_port,
		.head.protocol = tuple->head.protocol,
	};
}

/* The tuple of the answers to packets that leave as the rewrite makes them. */
static __always_inline void ipv4_reverse_rewritten(const struct bpfw_rewrite *rewrite,
						   __u8 protocol, struct bpfw_tuple *reverse)
{
	*reverse = (struct bpfw_tuple){
		.head.src_addr = rewrite->dst_addr,
		.head.dst_addr = rewrite->src_addr,
		.head.src_port = rewrite->dst_port,
		.head.dst_port = rewrite->src_port,
		.head.protocol = protocol,
	};
}

/* Whether packets leave with another address or port than they came with. */
static __always_inline int ipv4_is_translated(const struct bpfw_tuple *tuple,
					      const struct bpfw_rewrite *rewrite)
{
	const struct bpfw_head *head = &tuple->head;

	return head->src_addr != rewrite->src_addr || head->dst_addr != rewrite->dst_addr ||
	       head->src_port != rewrite->src_port || head->dst_port != rewrite->dst_port;
}

/*
 * TTL, header checksum, addresses and ports; the hook has seen to the L4 checksum, and that all is
 * readable. Without NAT they are what they were.
 */
static __always_inline void ipv4_translate(struct packet *pkt, const struct bpfw_rewrite *rewrite)
{
	struct ipv4_header *ip = (void *)pkt->l3;
	struct l4_ports *ports = ipv4_l4(pkt);

	ip->ttl -= 1;
	ip->check = update(ip->check, rewrite->ip_delta);
	ip->saddr = rewrite->src_addr;
	ip->daddr = rewrite->dst_addr;
	ports->both = *(const __u32 *)&rewrite->src_port;
}

/*
 * As in PREROUTING's order, the destination is translated before the routing decision, the source
 * after it.
 */
static __always_inline void ipv4_ask_forward(struct bpf_fib_lookup *fib, const struct packet *pkt,
					     const struct bpfw_rewrite *rewrite, __u32 ifindex)
{
	*fib = (struct bpf_fib_lookup){
		.family = AF_INET,
		.l4_protocol = pkt->tuple->head.protocol,
		.sport = pkt->tuple->head.src_port,
		.dport = rewrite->dst_port,
		.tot_len = ASK_FOR_MTU,
		.ifindex = ifindex,
		.tos = pkt->flow,
		.ipv4_src = pkt->tuple->head.src_addr,
		.ipv4_dst = rewrite->dst_addr,
	};
}

/* The same, with source and destination in each other's place. */
static __always_inline void ipv4_ask_back(struct bpf_fib_lookup *fib, const struct packet *pkt,
					  const struct bpfw_rewrite *rewrite, __u32 ifindex)
{
	*fib = (struct bpf_fib_lookup){
		.family = AF_INET,
		.l4_protocol = pkt->tuple->head.protocol,
		.sport = rewrite->dst_port,
		.dport = pkt->tuple->head.src_port,
		.tot_len = ASK_FOR_MTU,
		.ifindex = ifindex,
		.tos = pkt->flow,
		.ipv4_src = rewrite->dst_addr,
		.ipv4_dst = pkt->tuple->head.src_addr,
	};
}

#endif
