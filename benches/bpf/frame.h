/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes the headers of the next frame: a page of the pool comes back with the packet that the
 * program under test has made of it, so nothing of them is taken for granted. The payload is what
 * user space gave, and nobody changes it.
 *
 * In whole words, and computed in the machine's byte order. Who reads a word whose parts are still
 * on their way to the cache waits for them; packets that a NIC has written have no such parts.
 */
#ifndef FRAME_H
#define FRAME_H

#include "packet.h"
#include "plan.h"

/* Words of headers without options. */
#define IPV4_WORDS 5
#define IPV6_WORDS 10
#define UDP_WORDS  2
#define TCP_WORDS  5
#define HOP_LIMIT  64

/* A sum of up to 2^32 words of 32 bits, folded to 16 bits (RFC 1071). */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
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

/* IPv4's addresses, or the ends of IPv6's. */
struct ends {
	__u32 src;
	__u32 dst;
};

/* With this much behind the header. Returns the sum of both addresses. */
static __always_inline __u64 write_ipv4(__be32 *ip, __u32 l4_len, struct ends ends)
{
	__u32 first = IPV4_VERSION_IHL << 24 | (sizeof(*ip) * IPV4_WORDS + l4_len);
	__u32 dont_fragment = 0x4000;
	__u32 third = HOP_LIMIT << 24 | plan.protocol << 16;
	__u64 addresses = (__u64)ends.src + ends.dst;

	ip[0] = bpf_htonl(first);
	ip[1] = bpf_htonl(dont_fragment);
	ip[2] = bpf_htonl(third | (__u16)~fold((__u64)first + dont_fragment + third + addresses));
	ip[3] = bpf_htonl(ends.src);
	ip[4] = bpf_htonl(ends.dst);
	return addresses;
}

static __always_inline __u64 write_ipv6(__be32 *ip, __u32 l4_len, struct ends ends)
{
	__u64 addresses = (__u64)ends.src + ends.dst;

	ip[0] = bpf_htonl(6U << 28);
	ip[1] = bpf_htonl(l4_len << 16 | plan.protocol << 8 | HOP_LIMIT);
#pragma unroll
	for (int i = 0; i < 3; i++) {
		ip[2 + i] = ip[6 + i] = bpf_htonl(plan.net[i]);
		addresses += 2 * (__u64)plan.net[i];
	}
	ip[5] = bpf_htonl(ends.src);
	ip[9] = bpf_htonl(ends.dst);
	return addresses;
}

static __always_inline void write_udp(__be32 *udp, __u64 rest, __u32 l4_len, __u32 ports)
{
	__u16 check = ~fold(rest + ports + (l4_len << 16));

	udp[0] = bpf_htonl(ports);
	udp[1] = bpf_htonl(l4_len << 16 | (check ? check : 0xffff));
}

static __always_inline void write_tcp(__be32 *tcp, __u64 rest, __u32 ports)
{
	__u32 fourth = (__u32)TCP_WORDS << 28 | plan.tcp_flags << 16 | 0xffff;
	__u16 check = ~fold(rest + ports + plan.seq + plan.ack + fourth);

	tcp[0] = bpf_htonl(ports);
	tcp[1] = bpf_htonl(plan.seq);
	tcp[2] = bpf_htonl(plan.ack);
	tcp[3] = bpf_htonl(fourth);
	tcp[4] = bpf_htonl((__u32)check << 16);
}

/* Both headers; 0, or -1 where the frame is too short for them. */
static __always_inline int write_packet(__be32 *ip, __u32 words, const __u8 *end)
{
	__be32 *l4 = ip + words;
	__u32 l4_len = plan.frame_len - sizeof(struct eth_header) - sizeof(*ip) * words;
	__u32 number = next_connection(), host = 1 + number / PLAN_PORTS;
	struct ends ends = {.src = plan.src + (plan.src_varies ? host : 0),
			    .dst = plan.dst + (plan.dst_varies ? host : 0)};
	__u32 port = PLAN_FIRST_PORT + number % PLAN_PORTS;
	__u32 ports = plan.reply ? PLAN_SERVICE << 16 | port : port << 16 | PLAN_SERVICE;
	__u64 rest = plan.protocol + l4_len + plan.payload_sum;

	if ((__u8 *)(l4 + UDP_WORDS) > end)
		return -1;
	rest += words == IPV6_WORDS ? write_ipv6(ip, l4_len, ends) : write_ipv4(ip, l4_len, ends);
	if (plan.protocol == IPPROTO_UDP) {
		write_udp(l4, rest, l4_len, ports);
		return 0;
	}
	if ((__u8 *)(l4 + TCP_WORDS) > end)
		return -1;
	write_tcp(l4, rest, ports);
	return 0;
}

/* 0, or -1 where the frame is too short for its headers. */
static __always_inline int write_frame(struct xdp_md *xdp)
{
	__u8 *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	__be32 *ip = (void *)(data + sizeof(struct eth_header));

	if ((__u8 *)ip > end)
		return -1;
	copy_eth(data, plan.eth);
	if (plan.family == PLAN_IPV6)
		return write_packet(ip, IPV6_WORDS, end);
	return write_packet(ip, IPV4_WORDS, end);
}

#endif
