// SPDX-License-Identifier: GPL-2.0-only
/* The TC object. */
#include "hook_tc.h"
#include "datapath.h"
#include "egress.h"

SEC("tc") int bpfw_tc(struct __sk_buff *skb)
{
	return run(skb);
}

char LICENSE[] SEC("license") = "GPL";
