// SPDX-License-Identifier: GPL-2.0-only
/* The XDP object. */
#include "hook_xdp.h"
#include "datapath.h"
#include "egress.h"
#include "stamp.h"

SEC("xdp") int bpfw_xdp(struct xdp_md *xdp)
{
	return run(xdp);
}

char LICENSE[] SEC("license") = "GPL";
