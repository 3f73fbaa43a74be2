/* SPDX-License-Identifier: GPL-2.0-only */
/* Somebody else's program at TC egress: it counts UDP packets by their priority. */
#include <linux/pkt_cls.h>

#include "packet.h"

/* The last one is for all that are larger. */
#define PRIORITIES 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PRIORITIES);
	__uint(key_size, 4);
	__uint(value_size, 8);
} seen SEC(".maps");

SEC("tc") int count_priority(struct __sk_buff *skb)
{
	const struct eth_header *eth = (const void *)(long)skb->data;
	const struct ipv4_header *ip = (const void *)(eth + 1);
	__u32 priority = skb->priority < PRIORITIES - 1 ? skb->priority : PRIORITIES - 1;
	__u64 *packets = bpf_map_lookup_elem(&seen, &priority);

	if (packets && (const __u8 *)(ip + 1) <= (const __u8 *)(long)skb->data_end &&
	    eth->h_proto == bpf_htons(ETH_P_IP) && ip->protocol == IPPROTO_UDP)
		__sync_fetch_and_add(packets, 1);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
