// SPDX-License-Identifier: GPL-2.0-only
/* The TC object. */
#include "hook_tc.h"
#include "datapath.h"
#include "egress.h"

ENTRY_POINT("tc", bpfw_tc, L2_ETHERNET)
WAY_OUT(bpfw_egress, L2_ETHERNET)

/* For interfaces without an Ethernet header: ppp, WireGuard, tun. */
ENTRY_POINT("tc", bpfw_tc_l3, L2_NONE)
WAY_OUT(bpfw_egress_l3, L2_NONE)

char LICENSE[] SEC("license") = "GPL";
