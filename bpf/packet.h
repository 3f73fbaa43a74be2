/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Header layouts, and what the parsers note about a packet. Bytes instead of bitfields: the
 * headers' bitfields follow the host's byte order, not the object's.
 */
#ifndef PACKET_H
#define PACKET_H

#include "bpfw_abi.h"
#include "kernel.h"

#define ETHERTYPE_IPV4   be16(0x0800)
#define ETHERTYPE_8021Q  be16(0x8100)
#define ETHERTYPE_8021AD be16(0x88a8)

#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

#define IPV4_VERSION_IHL 0x45         /* version 4, five words, no options */
#define IPV4_FRAGMENT    be16(0x3fff) /* more fragments, or an offset */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define VLAN_ID_MASK 0x0fff

struct eth_header {
	__u8 dst[6];
	__u8 src[6];
	__be16 type;
};

struct vlan_header {
	__be16 tci;
	__be16 type;
};

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_len;
	__be16 id;
	__be16 frag;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 src;
	__be32 dst;
};

struct tcp_header {
	__be16 src;
	__be16 dst;
	__be32 seq;
	__be32 ack;
	__u8 data_offset; /* in the upper four bits, in words */
	__u8 flags;
	__be16 window;
	__u16 check;
	__be16 urgent;
};

/* What TCP and UDP begin with: both ports in one word. */
struct l4_ports {
	__be32 both;
};

struct udp_header {
	__be16 src;
	__be16 dst;
	__be16 len;
	__u16 check;
};

/* Bytes that must be readable for the parsers: Ethernet, one tag, IPv4, TCP. */
#define HEADERS_MAX                                                                                \
	(sizeof(struct eth_header) + sizeof(struct vlan_header) + sizeof(struct ipv4_header) +     \
	 sizeof(struct tcp_header))

/*
 * A packet is tried twice. The express lane is for what is plain: no tags, nothing to cut off, a
 * connection that has its next hop. It writes nothing before it is sure, so that the full lane can
 * begin anew with all others, and say why. The code is the same but for what the first leaves out;
 * by itself it keeps more in registers, and so needs fewer instructions.
 */
#define LANE_FULL    0
#define LANE_EXPRESS 1

struct packet {
	/* Apart from the rest: helpers take its address, which keeps it out of registers. */
	struct bpfw_tuple *tuple;
	__u8 *data; /* the Ethernet header; set by the hook, anew after each resize */
	__u8 *end;
	__u8 *l3; /* the IPv4 header: a pointer, because the verifier forgets spilled offsets */
	struct bpfw_link_key from;
	__u32 l2_len; /* bytes in front of the IPv4 header */
	__u16 ip_len;
	__u16 l4_header_len;
	__u16 l4_check; /* the L4 checksum as it is in the packet */
	__u8 tos;
	__u8 ttl;
	__u8 tcp_flags;
};

/*
 * An Ethernet header begins two bytes after a multiple of four: in packets by the kernel's
 * NET_IP_ALIGN, in our own structs by their layout. The compiler would go byte by byte.
 */
static __always_inline void copy_eth(__u8 *to, const __u8 *from)
{
	*(__u16 *)to = *(const __u16 *)from;
	*(__u32 *)(to + 2) = *(const __u32 *)(from + 2);
	*(__u32 *)(to + 6) = *(const __u32 *)(from + 6);
	*(__u32 *)(to + 10) = *(const __u32 *)(from + 10);
}

static __always_inline __u32 host16(__be16 value)
{
	return be16(value);
}

#endif
