/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes the headers of the next frame: a page of the pool comes back with the packet that the
 * program under test has made of it, so nothing of them is taken for granted. The payload is what
 * user space gave, and nobody changes it.
 */
#ifndef FRAME_H
#define FRAME_H

#include "packet.h"
#include "plan.h"

/* A sum of up to 2^32 words of 32 bits, folded to 16 bits (RFC 1071). */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline __u64 sum_words(const void *header, int words)
{
	const __u32 *word = header;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++)
		sum += word[i];
	return sum;
}

/* Connections are taken in turn, or by a stride that visits each of them once. */
static __always_inline __u32 next_connection(void)
{
	__u32 number = plan.position;
	__u32 next = number + plan.stride;

	plan.position = next >= plan.connections ? next - plan.connections : next;
	return number;
}

static __always_inline void write_eth(struct eth_header *eth)
{
	__builtin_memcpy(eth, plan.macs, sizeof(plan.macs));
	eth->type = ETHERTYPE_IPV4;
}

static __always_inline void write_ip(struct ipv4_header *ip, __u32 length, __u32 host)
{
	*ip = (struct ipv4_header){
		.version_ihl = IPV4_VERSION_IHL,
		.total_len = be16(length),
		.frag = be16(0x4000), /* must not be split */
		.ttl = 64,
		.protocol = plan.protocol,
		.src = be32(plan.src + (plan.src_varies ? host : 0)),
		.dst = be32(plan.dst + (plan.dst_varies ? host : 0)),
	};
	ip->check = ~fold(sum_words(ip, 5));
}

/* The pseudo header and the payload. */
static __always_inline __u64 sum_rest(const struct ipv4_header *ip, __u32 l4_len)
{
	return (__u64)ip->src + ip->dst + be16(plan.protocol) + be16(l4_len) + plan.payload_sum;
}

static __always_inline void write_udp(struct udp_header *udp, __u64 rest, __u32 l4_len, __be16 src,
				      __be16 dst)
{
	*udp = (struct udp_header){.src = src, .dst = dst, .len = be16(l4_len)};
	udp->check = ~fold(rest + sum_words(udp, 2));
	if (!udp->check)
		udp->check = 0xffff;
}

static __always_inline void write_tcp(struct tcp_header *tcp, __u64 rest, __be16 src, __be16 dst)
{
	*tcp = (struct tcp_header){
		.src = src,
		.dst = dst,
		.seq = be32(plan.seq),
		.ack = be32(plan.ack),
		.data_offset = sizeof(*tcp) / 4 << 4,
		.flags = plan.tcp_flags,
		.window = be16(0xffff),
	};
	tcp->check = ~fold(rest + sum_words(tcp, 5));
}

/* 0, or -1 where the frame is too short for its headers. */
static __always_inline int write_frame(struct xdp_md *xdp)
{
	__u8 *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	struct eth_header *eth = (void *)data;
	struct ipv4_header *ip = (void *)(eth + 1);
	struct tcp_header *tcp = (void *)(ip + 1);
	__u32 length = plan.frame_len - sizeof(*eth);
	__u32 number = next_connection();
	__be16 port = be16(PLAN_FIRST_PORT + number % PLAN_PORTS);
	__be16 src = plan.reply ? be16(PLAN_SERVICE) : port;
	__be16 dst = plan.reply ? port : be16(PLAN_SERVICE);
	__u64 rest;

	if ((__u8 *)(tcp + 1) > end)
		return -1;
	write_eth(eth);
	write_ip(ip, length, 1 + number / PLAN_PORTS);
	length -= sizeof(*ip);
	rest = sum_rest(ip, length);
	if (plan.protocol == PROTOCOL_UDP)
		write_udp((void *)tcp, rest, length, src, dst);
	else
		write_tcp(tcp, rest, src, dst);
	return 0;
}

#endif
