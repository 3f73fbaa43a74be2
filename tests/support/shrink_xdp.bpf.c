/* SPDX-License-Identifier: GPL-2.0-only */
#include "shrink.h"

SEC("xdp") int shrink(struct xdp_md *xdp)
{
	long now = (void *)(long)xdp->data_end - (void *)(long)xdp->data;
	__u32 *keep = length_to_keep();

	if (!keep || bpf_xdp_adjust_tail(xdp, *keep - now))
		return KERNEL_WOULD_NOT;
	return go_on(xdp);
}
