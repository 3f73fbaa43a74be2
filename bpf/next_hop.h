/* SPDX-License-Identifier: GPL-2.0-only */
/* Where a packet goes: asked of the kernel's own routing, remembered as a hop word. */
#ifndef NEXT_HOP_H
#define NEXT_HOP_H

#include "connection.h"
#include "handover.h"
#include "heartbeat.h"
#include "ip.h"
#include "log.h"
#include "proof.h"
#include "settings.h"

/* BPF_FIB_LOOKUP_MARK of Linux 6.10, which older headers do not have. */
#define LOOK_UP_BY_MARK (1U << 5)

static __always_inline __u32 hop_generation(__u64 hop_word)
{
	return hop_word;
}

static __always_inline __u32 hop_slot(__u64 hop_word)
{
	return hop_word >> 32;
}

/* The mark lies where smac is in the answer: it is set anew for each look-up. */
static __always_inline long ask_routing(void *ctx, struct bpf_fib_lookup *fib, __u32 mark)
{
	if (!settings.route_mark)
		return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
	mark &= settings.route_mark;
	__builtin_memcpy(fib->smac, &mark, sizeof(mark));
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), LOOK_UP_BY_MARK);
}

/* Forward: where this packet goes. */
static __always_inline int look_forward(void *ctx, const struct packet *pkt,
					const struct snapshot *snap, __u32 ifindex, __u32 mark,
					struct bpf_fib_lookup *fib)
{
	long answer;

	ip_ask_forward(fib, pkt, &snap->translation, ifindex);
	answer = ask_routing(ctx, fib, mark);
	LOG_INFO("look-up: answer %ld, egress %u", answer, fib->ifindex);
	switch (answer) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		/* An IPv6 gateway of an IPv4 route: the daemon could not keep it in use. */
		if (fib->family != ip_address_family(pkt))
			return BPFW_PASS_NO_ROUTE;
		return answer ? BPFW_PASS_NO_NEIGHBOR : BPFW_GO_ON;
	default:
		return BPFW_PASS_NO_ROUTE;
	}
}

/* There is no way back; the lower bits have the look-up's answer. Interface indices are smaller. */
#define NO_WAY_BACK (1U << 31)

/*
 * Reverse: where a packet of the other direction would leave, if it came in where this one goes
 * out. The stack may forward this packet or not because of that (rp_filter, nftables' fib), so a
 * proof holds for one answer only. It uses the forward look-up's memory: the stack has no room for
 * two.
 */
static __always_inline __u32 look_back(void *ctx, const struct packet *pkt,
				       const struct snapshot *snap, __u32 egress, __u32 mark,
				       struct bpf_fib_lookup *fib)
{
	long answer;

	ip_ask_back(fib, pkt, &snap->translation, egress);
	answer = ask_routing(ctx, fib, mark);
	if (answer == BPF_FIB_LKUP_RET_SUCCESS || answer == BPF_FIB_LKUP_RET_NO_NEIGH)
		return fib->ifindex;
	return NO_WAY_BACK | answer;
}

/*
 * Interfaces without an Ethernet header have no neighbors. The kernel keeps entries in their place,
 * which come and go. Only with such an entry the look-up tells the route's MTU, so egress_map has
 * it, too. A packet's addresses are not part of such a next hop, or each would take a slot.
 */
static __always_inline void forget_neighbor(const struct packet *pkt, struct bpf_fib_lookup *fib,
					    const struct bpfw_egress *egress)
{
	ip_forget_neighbor(pkt, fib);
	fib->tot_len = ip_mtu(pkt, egress);
	__builtin_memset(fib->dmac, 0, sizeof(fib->dmac));
	__builtin_memset(fib->smac, 0, sizeof(fib->smac));
}

/* What routing says of the way out. */
static __always_inline void note_route(const struct packet *pkt, struct bpfw_hop *hop,
				       const struct bpf_fib_lookup *fib)
{
	struct eth_header *eth = (void *)hop->hot.l2;

	hop->egress = fib->ifindex;
	ip_note_neighbor(pkt, hop, fib);
	hop->hot.mtu = fib->tot_len;
	__builtin_memcpy(eth->h_dest, fib->dmac, sizeof(eth->h_dest));
	__builtin_memcpy(eth->h_source, fib->smac, sizeof(eth->h_source));
}

/* What its interface adds to that. */
static __always_inline void note_egress(const struct packet *pkt, struct bpfw_hop_hot *hop,
					const struct bpfw_egress *egress)
{
	struct eth_header *eth = (void *)hop->l2;
	struct vlan_header *tag = (void *)(eth + 1);

	hop->port = egress->port;
	if (ip_mtu(pkt, egress) < hop->mtu)
		hop->mtu = ip_mtu(pkt, egress);
	hop->l2_len = sizeof(*eth);
	if (egress->vlan_proto) {
		eth->h_proto = egress->vlan_proto;
		tag->h_vlan_TCI = bpf_htons(egress->vlan_id);
		tag->h_vlan_encapsulated_proto = ip_type(pkt);
		hop->l2_len += sizeof(*tag);
	} else {
		eth->h_proto = ip_type(pkt);
	}
}

/* The slot of a next hop, old or new. */
static __always_inline int find_slot(const struct bpfw_hop *hop, __u32 *slot)
{
	__u32 *known = bpf_map_lookup_elem(&hop_index, hop);
	__u32 *used;

	if (known) {
		*slot = *known;
		return BPFW_GO_ON;
	}
	used = only_slot(&hop_count);
	/* Checked first, so that the number does not grow and wrap when all slots are taken. */
	if (!used || *used >= BPFW_HOP_SLOTS)
		return BPFW_PASS_HOPS_FULL;
	*slot = __sync_fetch_and_add(used, 1);
	if (*slot >= BPFW_HOP_SLOTS)
		return BPFW_PASS_HOPS_FULL;
	*hop_at(*slot) = hop->hot;
	if (bpf_map_update_elem(&hop_index, hop, slot, BPF_NOEXIST) == 0)
		return BPFW_GO_ON;
	/* Another CPU found the same next hop at the same time; our slot stays unused. */
	known = bpf_map_lookup_elem(&hop_index, hop);
	if (!known)
		return BPFW_PASS_HOPS_FULL;
	*slot = *known;
	return BPFW_GO_ON;
}

/* No tag on the way in, none to write on the way out, and no log line for each packet. */
static __always_inline int is_express(const struct bpfw_hop_hot *hop)
{
	return !hop->from.vlan_proto && hop->l2_len == sizeof(struct eth_header) &&
	       settings.log_level < BPFW_LOG_DEBUG;
}

/*
 * For the packets that follow. Another CPU may have ended the connection after this packet looked.
 * Then this one takes its next hop away again. A CPU that ends the connection after the store does
 * that itself.
 */
static __always_inline int note_hop(const struct conn *conn, struct snapshot *snap, __u64 hop_word)
{
	__sync_val_compare_and_swap(&conn->cell->hop_word, snap->hop_word, hop_word);
	snap->hop_word = hop_word;
	if (*(volatile __u16 *)&conn->rest->finished) {
		__sync_lock_test_and_set(&conn->cell->hop_word, 0);
		return BPFW_PASS_FINISHED;
	}
	return BPFW_GO_ON;
}

/*
 * Whether the stack has sent such a packet by this next hop. If not, this one asks: it goes to the
 * stack, and proves what its way back is now, if it leaves.
 */
static __always_inline int check_proof(struct bpfw_rest *rest, const struct snapshot *snap,
				       const struct bpfw_hop *hop, const struct bpfw_link *link,
				       __u32 way_back, __u32 epoch)
{
	const struct way way = {
		.epoch = epoch,
		.ingress = link->ingress,
		.egress = hop->egress,
		.back = way_back,
	};

	if (rest->proof == proof_of(snap->seal, rest->id, &way, hop->hot.l2))
		return BPFW_GO_ON;
	rest->way_back = way_back;
	return BPFW_PASS_UNPROVEN;
}

/* Ask routing where this packet goes, and remember the answer for those that follow. */
static __always_inline int look_up(void *ctx, const struct packet *pkt,
				   const struct bpfw_link *link, const struct conn *conn,
				   struct snapshot *snap, const struct bpfw_generation *generation,
				   __u64 now)
{
	__u32 mark = conn->rest->mark, slot, way_back;
	struct bpf_fib_lookup fib;
	struct bpfw_egress *egress;
	struct bpfw_hop hop = {};
	int verdict;

	verdict = look_forward(ctx, pkt, snap, link->ifindex, mark, &fib);
	if (verdict && verdict != BPFW_PASS_NO_NEIGHBOR)
		return verdict;
	egress = bpf_map_lookup_elem(&egress_map, &fib.ifindex);
	if (egress && (egress->flags & BPFW_EGRESS_NO_HEADER))
		forget_neighbor(pkt, &fib, egress);
	else if (verdict)
		return verdict;
	note_route(pkt, &hop, &fib);
	if (hop.egress == link->ifindex && !ip_hides_redirects(pkt, &snap->translation))
		return BPFW_PASS_SAME_LINK;
	if (!egress || !(egress->flags & BPFW_EGRESS_REDIRECT))
		return BPFW_PASS_EGRESS;
	way_back = look_back(ctx, pkt, snap, hop.egress, mark, &fib);
	hop.hot.from = pkt->from;
	__builtin_memcpy(hop.hot.from_mac, link->mac, sizeof(hop.hot.from_mac));
	note_egress(pkt, &hop.hot, egress);
	verdict = check_proof(conn->rest, snap, &hop, link, way_back,
			      epoch_of(generation->policy, pkt->key->hash, now));
	if (verdict) {
		__sync_fetch_and_add(&egress->asked, 1);
		return verdict;
	}
	if (is_express(&hop.hot))
		hop.hot.express_mtu = hop.hot.mtu;
	verdict = find_slot(&hop, &slot);
	if (verdict)
		return verdict;
	return note_hop(conn, snap,
			(__u64)slot << 32 |
				hop_generation_now(generation->current, pkt->key->hash, now));
}

#endif
