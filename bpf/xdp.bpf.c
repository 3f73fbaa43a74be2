// SPDX-License-Identifier: GPL-2.0-only
/* The XDP object. */
#include "hook_xdp.h"
#include "datapath.h"
#include "egress.h"
#include "stamp.h"

ENTRY_POINT("xdp", bpfw_xdp, L2_ETHERNET)
WAY_OUT(bpfw_egress, L2_ETHERNET)

char LICENSE[] SEC("license") = "GPL";
