/* SPDX-License-Identifier: GPL-2.0-only */
/* What bindgen reads to make the Rust view of libnetfilter_conntrack. */
#ifndef CONNTRACK_API_H
#define CONNTRACK_API_H

/* The library's header uses u_int32_t without including what defines it. */
#include <sys/types.h>
#include <linux/netlink.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>

#endif
