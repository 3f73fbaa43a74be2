/* SPDX-License-Identifier: GPL-2.0-only */
#include "shrink.h"

SEC("tc") int shrink(struct __sk_buff *skb)
{
	__u32 *keep = length_to_keep();

	if (!keep || bpf_skb_change_tail(skb, *keep, 0))
		return KERNEL_WOULD_NOT;
	return go_on(skb);
}
