/* SPDX-License-Identifier: GPL-2.0-only */
/* Somebody else's programs: they count the UDP packets that they see, and let them go on. */
#include <linux/pkt_cls.h>

#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 8);
} seen SEC(".maps");

static __always_inline void count(const __u8 *data, const __u8 *end)
{
	const struct eth_header *eth = (const void *)data;
	const struct ipv4_header *ip = (const void *)(eth + 1);
	const __u32 only = 0;
	__u64 *packets = bpf_map_lookup_elem(&seen, &only);

	if (packets && (const __u8 *)(ip + 1) <= end && eth->h_proto == bpf_htons(ETH_P_IP) &&
	    ip->protocol == IPPROTO_UDP)
		__sync_fetch_and_add(packets, 1);
}

SEC("tc") int bystander_tc(struct __sk_buff *skb)
{
	count((const void *)(long)skb->data, (const void *)(long)skb->data_end);
	return TC_ACT_UNSPEC;
}

SEC("xdp") int bystander_xdp(struct xdp_md *xdp)
{
	count((const void *)(long)xdp->data, (const void *)(long)xdp->data_end);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
