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
#define TCP_WORDS  5

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

/* Returns the sum of both addresses. */
static __always_inline __u64 write_ip(__be32 *ip, __u32 length, __u32 host)
{
	__u32 first = IPV4_VERSION_IHL << 24 | length; /* length of the packet */
	__u32 dont_fragment = 0x4000;
	__u32 third = 64 << 24 | plan.protocol << 16; /* time to live */
	__u32 src = plan.src + (plan.src_varies ? host : 0);
	__u32 dst = plan.dst + (plan.dst_varies ? host : 0);
	__u64 addresses = (__u64)src + dst;

	ip[0] = bpf_htonl(first);
	ip[1] = bpf_htonl(dont_fragment);
	ip[2] = bpf_htonl(third | (__u16)~fold((__u64)first + dont_fragment + third + addresses));
	ip[3] = bpf_htonl(src);
	ip[4] = bpf_htonl(dst);
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

/* 0, or -1 where the frame is too short for its headers. */
static __always_inline int write_frame(struct xdp_md *xdp)
{
	__u8 *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	__be32 *ip = (void *)(data + sizeof(struct eth_header)), *l4 = ip + IPV4_WORDS;
	__u32 length = plan.frame_len - sizeof(struct eth_header);
	__u32 number = next_connection();
	__u32 port = PLAN_FIRST_PORT + number % PLAN_PORTS;
	__u32 ports = plan.reply ? PLAN_SERVICE << 16 | port : port << 16 | PLAN_SERVICE;
	__u64 rest;

	if ((__u8 *)(l4 + TCP_WORDS) > end)
		return -1;
	copy_eth(data, plan.eth);
	rest = write_ip(ip, length, 1 + number / PLAN_PORTS);
	length -= sizeof(*ip) * IPV4_WORDS;
	rest += plan.protocol + length + plan.payload_sum;
	if (plan.protocol == IPPROTO_UDP)
		write_udp(l4, rest, length, ports);
	else
		write_tcp(l4, rest, ports);
	return 0;
}

#endif
