// SPDX-License-Identifier: GPL-2.0-only
/* Where the benchmark's packets come from, and where they end. */
#include <linux/pkt_cls.h>

#include "../../tests/support/go_on.h"
#include "frame.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 8);
} arrived SEC(".maps");

static __u64 (*const bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;

/*
 * The time of a whole call of BPF_PROG_RUN is no measure: before the first and after the last frame
 * the kernel makes and frees a pool of pages, which takes longer than many frames.
 */
static __always_inline void take_time(void)
{
	__u32 sent = plan.sent++;

	if (sent == plan.first)
		plan.began = bpf_ktime_get_ns();
	if (sent == plan.last)
		plan.ended = bpf_ktime_get_ns();
}

/* Run with live frames: writes each, then lets it go the way that is measured. */
SEC("xdp") int generate(struct xdp_md *xdp)
{
	take_time();
	if (write_frame(xdp))
		return XDP_ABORTED;
	switch (plan.action) {
	case PLAN_DROP:
		return XDP_DROP;
	case PLAN_PASS:
		return XDP_PASS;
	case PLAN_REDIRECT:
		return bpf_redirect(plan.egress, 0);
	default:
		return go_on(xdp);
	}
}

/* TC's limit: nothing but the redirect. */
SEC("tc") int redirect_tc(struct __sk_buff *skb __attribute__((unused)))
{
	return bpf_redirect(plan.egress, 0);
}

/* At the way out, where bpfw's program looks at a stamp: what a program alone costs there. */
SEC("tc") int pass_tc(struct __sk_buff *skb __attribute__((unused)))
{
	return TC_ACT_UNSPEC;
}

/* At the client, where nothing shall arrive, and what does counts for nothing. */
SEC("xdp") int swallow(struct xdp_md *xdp __attribute__((unused)))
{
	return XDP_DROP;
}

static __always_inline void count_arrival(void)
{
	const __u32 only = 0;
	__u64 *frames = bpf_map_lookup_elem(&arrived, &only);

	if (frames)
		*frames += 1;
}

/* At the server: counts what arrives, and ends it. */
SEC("xdp") int sink(struct xdp_md *xdp __attribute__((unused)))
{
	count_arrival();
	return XDP_DROP;
}

/* The same at a tun, which has no other side: nothing of the packet stays. */
SEC("socket") int sink_tun(struct __sk_buff *skb __attribute__((unused)))
{
	count_arrival();
	return 0;
}
