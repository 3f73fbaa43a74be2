/* SPDX-License-Identifier: GPL-2.0-only */
/* Ones' complement arithmetic (RFC 1071, RFC 1624), in the machine's byte order throughout. */
#ifndef CHECKSUM_H
#define CHECKSUM_H

#include "packet.h"

/* A sum of up to 2^32 words of 16 or 32 bits, folded to 16 bits. */
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/*
 * A header's checksum after a change by delta, as the kernel's csum_replace functions give it:
 * inverted in 32 bits, so that of ones' complement's two zeros it comes to the same one.
 */
static __always_inline __u16 update(__u16 check, __u16 delta)
{
	return ~fold((__u64)(__u32)~check + delta);
}

static __always_inline int ipv4_checksum_ok(const struct ipv4_header *ip)
{
	const __u32 *words = (const __u32 *)ip;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < 5; i++)
		sum += words[i];
	return fold(sum) == 0xffff;
}

/*
 * Whether the L4 checksum is what a sender leaves who expects the hardware to complete it: the
 * pseudo header's sum. One packet in 65,535 looks like it by chance and takes the slow way.
 */
static __always_inline int looks_partial(const struct packet *pkt)
{
	__u64 sum = (__u64)pkt->tuple.src_addr + pkt->tuple.dst_addr + be16(pkt->tuple.protocol) +
		    be16(pkt->ip_len - sizeof(struct ipv4_header));

	return fold(sum) == pkt->l4_check;
}

#endif
