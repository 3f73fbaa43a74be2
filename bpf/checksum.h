/* SPDX-License-Identifier: GPL-2.0-only */
/* Ones' complement arithmetic (RFC 1071, RFC 1624), in the machine's byte order throughout. */
#ifndef CHECKSUM_H
#define CHECKSUM_H

#include "packet.h"

/*
 * A header's checksum after a change by delta. The delta is not 0, so the sum is never 0. Ones'
 * complement has two zeros; the result is the one that the kernel's csum_replace functions give,
 * which invert in 32 bits.
 */
static __always_inline __u16 update(__u16 check, __u16 delta)
{
	__u32 sum = (__u16)~check + delta;

	return ~(sum + (sum >> 16));
}

/*
 * Whether a sum below 2^46 is a multiple of 0xffff, that is: would fold to 0xffff, or is 0. In one
 * multiplication: by the inverse of 0xffff modulo 2^64 its multiples become 0, 1, 2, ... The limit
 * is the largest that fits in a comparison.
 */
static __always_inline int is_ones_complement_zero(__u64 sum)
{
	return sum * 0xfffefffefffeffffULL < 0x7fffffff;
}

/* Add to a checksum that is complete; false if there is none. */
static __always_inline int fix_check(__u16 *check, __u16 delta, int protocol)
{
	if (protocol != IPPROTO_UDP) {
		*check = update(*check, delta);
		return 1;
	}
	/* RFC 768: 0 says that there is no checksum, so a computed 0 is sent as 0xffff. */
	if (!*check)
		return 0;
	*check = update(*check, delta);
	if (!*check)
		*check = 0xffff;
	return 1;
}

#endif
