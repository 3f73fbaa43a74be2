/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Header layouts, and what the parsers note about a packet. Fields have the names of the kernel's
 * UAPI headers. The structs are our own. iphdr and tcphdr have bitfields, which follow the build
 * host's byte order instead of the object's. ethhdr is packed, so that Clang reads single bytes.
 */
#ifndef PACKET_H
#define PACKET_H

#include <linux/if_ether.h>

#include "bpfw_abi.h"
#include "kernel.h"

/* As in headers of the kernel that are not UAPI, or that include asm/byteorder.h. */
#define IPPROTO_TCP   6
#define IPPROTO_UDP   17
#define VLAN_VID_MASK 0x0fff
#define TCPHDR_FIN    0x01
#define TCPHDR_SYN    0x02
#define TCPHDR_RST    0x04
#define TCPHDR_ACK    0x10

/*
 * What entry points know of packets: with an Ethernet header, tags may follow; or the IP header
 * comes first. A constant: the compiler drops what the other kind needs.
 */
#define L2_ETHERNET sizeof(struct eth_header)
#define L2_NONE     0

#define IPV4_VERSION_IHL 0x45 /* version 4, five words, no options */

struct eth_header {
	__u8 h_dest[ETH_ALEN];
	__u8 h_source[ETH_ALEN];
	__be16 h_proto;
};

struct vlan_header {
	__be16 h_vlan_TCI;
	__be16 h_vlan_encapsulated_proto;
};

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};

struct ipv6_header {
	__be32 flow; /* version, traffic class, flow label */
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__be32 saddr[4];
	__be32 daddr[4];
};

struct tcp_header {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack_seq;
	__u8 doff_res; /* the data offset in words, in the upper four bits */
	__u8 flags;
	__be16 window;
	__u16 check;
	__be16 urg_ptr;
};

/* What TCP and UDP begin with: both ports in one word. */
struct l4_ports {
	__be32 both;
};

struct udp_header {
	__be16 source;
	__be16 dest;
	__be16 len;
	__u16 check;
};

/*
 * A packet's tuple as maps know it. It is not part of struct packet: helpers take its address,
 * which would keep all of that struct out of registers.
 */
struct packet_key {
	__u64 hash;
	struct bpfw_signal signal;
};

struct packet {
	struct packet_key *key;   /* full lane */
	struct bpfw_tuple *tuple; /* there; in the express lane, a variable of its own */
	__u8 *data;               /* the Ethernet header; set by the hook, anew after each resize */
	__u8 *end;
	__u16 *check; /* express lane: the L4 checksum */
	__u8 *l3;     /* the IP header: a pointer, because the verifier forgets spilled offsets */
	struct bpfw_link_key from;
	__u64 hash;   /* of the tuple */
	__u32 l2_len; /* bytes in front of the IP header; first as the entry point knows */
	__be16 type;  /* EtherType, where no Ethernet header tells */
	__u8 family;  /* BPFW_FAMILY_*: a constant, as the function is made for one */
	__u8 ttl;     /* of IPv6: the hop limit */
	__u32 ip_len;
	__be32 flow; /* what routing asks for: the TOS; of IPv6 traffic class and flow
			label */
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

/*
 * bpf_fib_lookup compares tot_len with the route's MTU, and answers the MTU only if it was given
 * one. Any small length makes it answer; the packet's own is compared later, per segment. Without
 * one it would compare an sk_buff's length with the device's MTU, and find no way for large ones.
 */
#define ASK_FOR_MTU 1

/* Clang would rather take the byte out of a word that was read before, by a shift and a mask. */
static __always_inline __u8 read_byte(const __u8 *byte)
{
	return *(const volatile __u8 *)byte;
}

/* The same where 64 bits were read before: two shifts. */
static __always_inline __u64 read_half(const __be32 *half)
{
	return *(const volatile __be32 *)half;
}

static __always_inline void note_ports(struct packet *pkt, const struct l4_ports *ports)
{
	*(__u32 *)&pkt->tuple->head.src_port = ports->both;
}

static __always_inline __u32 tcp_header_len(const struct tcp_header *tcp)
{
	return (tcp->doff_res >> 4) * 4;
}

#endif
