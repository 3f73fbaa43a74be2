/* SPDX-License-Identifier: GPL-2.0-only */
/* All that is special about XDP: the frame lies open, tags and checksums included. */
#ifndef HOOK_XDP_H
#define HOOK_XDP_H

#define HOOK BPFW_HOOK_XDP

#include "checksum.h"
#include "ip.h"
#include "maps.h"
#include "packet.h"
#include "parse_l4.h"

#define HOOK_DROP XDP_DROP
/*
 * A call would take a dozen instructions. Both express lanes share a frame of 48 bytes. More than
 * 64 would be too much beside the full lane's 448: there are 512.
 */
#define HOOK_EXPRESS __always_inline
typedef struct xdp_md hook_ctx;

/*
 * When a frame of an interface last took the full lane, in jiffies. Some drivers keep a program
 * attached that they do not run; the daemon compares this with the interface's counter.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BPFW_SEEN_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} seen_map SEC(".maps");

/* At most one store for each tick: the CPUs share these cache lines. */
static __always_inline void hook_note_seen(struct xdp_md *xdp, __u64 now)
{
	__u32 slot = xdp->ingress_ifindex & (BPFW_SEEN_SLOTS - 1);
	__u32 *seen = bpf_map_lookup_elem(&seen_map, &slot);

	_Static_assert((BPFW_SEEN_SLOTS & (BPFW_SEEN_SLOTS - 1)) == 0, "slots are masked");
	if (seen && *seen != (__u32)now)
		*seen = (__u32)now;
}

static __always_inline void hook_set_data(struct xdp_md *xdp, struct packet *pkt)
{
	pkt->data = (void *)(long)xdp->data;
	pkt->end = (void *)(long)xdp->data_end;
}

/* IPv4's express lane finds out. */
static __always_inline int hook_is_ipv6(struct xdp_md *xdp __attribute__((unused)))
{
	return 0;
}

static __always_inline __u32 hook_ifindex(struct xdp_md *xdp)
{
	return xdp->ingress_ifindex;
}

static __always_inline void hook_read(struct xdp_md *xdp, struct packet *pkt)
{
	hook_set_data(xdp, pkt);
}

/* All headers lie open. */
static __always_inline void hook_open(struct xdp_md *xdp __attribute__((unused)),
				      struct packet *pkt __attribute__((unused)))
{
}

/* 64 bits: the verifier forbids arithmetic on pointers in 32. */
static __always_inline __u64 hook_frame_len(struct xdp_md *xdp)
{
	__u64 length = (void *)(long)xdp->data_end - (void *)(long)xdp->data;

	/*
	 * Forces the subtraction. Clang would rather add the compared number to the pointer. Before
	 * Linux 6.18 the verifier refuses that if the number was byte-swapped.
	 */
	opaque(length);
	return length;
}

static __always_inline __u32 hook_segment_len(struct xdp_md *xdp __attribute__((unused)),
					      const struct packet *pkt)
{
	return pkt->ip_len;
}

/* There are no segments. */
static __always_inline int hook_segments_fit(struct xdp_md *xdp __attribute__((unused)),
					     const struct packet *pkt __attribute__((unused)),
					     const struct bpfw_hop_hot *hop __attribute__((unused)))
{
	return 0;
}

/* All frames come with an Ethernet header. */
static __always_inline int hook_make_room(struct xdp_md *xdp __attribute__((unused)),
					  struct packet *pkt __attribute__((unused)))
{
	return BPFW_GO_ON;
}

/* Cut what follows the IP packet, and make room for the new Ethernet header. */
static __always_inline int hook_resize(struct xdp_md *xdp, struct packet *pkt,
				       const struct bpfw_hop_hot *hop)
{
	long padding = hook_frame_len(xdp) - pkt->l2_len - pkt->ip_len;
	int growth = hop->l2_len - (int)pkt->l2_len;
	__u16 *check = l4_check(pkt);

	if ((__u8 *)(check + 1) > pkt->end)
		return BPFW_PASS_SHORT;
	if (ip_looks_partial(pkt, ip_protocol(pkt), *check))
		return BPFW_PASS_PARTIAL_SUM;
	if (padding > 0 && bpf_xdp_adjust_tail(xdp, -padding))
		return BPFW_PASS_RESIZE;
	if (growth && bpf_xdp_adjust_head(xdp, -growth))
		return BPFW_PASS_RESIZE;
	hook_set_data(xdp, pkt);
	pkt->l3 = pkt->data + sizeof(struct eth_header);
	if (hop->l2_len != sizeof(struct eth_header))
		pkt->l3 += sizeof(struct vlan_header);
	return BPFW_GO_ON;
}

/* Leaves all headers readable. */
static __always_inline int hook_fix_l4_checksum(struct xdp_md *xdp __attribute__((unused)),
						struct packet *pkt,
						const struct bpfw_rewrite *rewrite)
{
	__u16 *check = l4_check(pkt);

	if ((__u8 *)(check + 1) > pkt->end)
		return BPFW_DROP_ERROR;
	if (rewrite->flags & BPFW_CONN_NAT)
		fix_check(check, rewrite->l4_delta, pkt->tuple->head.protocol);
	return BPFW_GO_ON;
}

/* Whether the checksum is one that hook_express() can change. */
static __always_inline int hook_likes_check(const struct packet *pkt, __u8 protocol, __u64 check)
{
	return !ip_looks_partial(pkt, protocol, check);
}

/*
 * As hook_fix_l4_checksum() for a packet that parse_plain() takes: 0 is no checksum, and which
 * protocol it is matters only where the new one is 0.
 */
static __always_inline int hook_express(struct xdp_md *xdp __attribute__((unused)),
					struct packet *pkt, const struct bpfw_rewrite *rewrite)
{
	__u16 check = *pkt->check;

	if (is_ipv6(pkt) || !check)
		return BPFW_GO_ON;
	check = update(check, rewrite->l4_delta);
	if (!check && ip_protocol(pkt) == IPPROTO_UDP)
		check = 0xffff;
	*pkt->check = check;
	return BPFW_GO_ON;
}

static __always_inline void hook_write_l2(struct packet *pkt, const struct bpfw_hop_hot *hop)
{
	copy_eth(pkt->data, hop->l2);
	if (hop->l2_len != sizeof(struct eth_header))
		*(__u32 *)(pkt->data + sizeof(struct eth_header)) =
			*(const __u32 *)(hop->l2 + sizeof(struct eth_header));
}

static __always_inline int hook_redirect(struct xdp_md *xdp __attribute__((unused)), __u32 port)
{
	return bpf_redirect(port, 0);
}

/* There is no sk_buff yet to put a stamp on: bpfw_stamp does that. */
static __always_inline void hook_ask(struct xdp_md *xdp __attribute__((unused)),
				     __u16 stamp __attribute__((unused)))
{
}

static __always_inline int hook_pass(struct xdp_md *xdp __attribute__((unused)),
				     int verdict __attribute__((unused)))
{
	return XDP_PASS;
}

#endif
