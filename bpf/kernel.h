/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel offers a program: the helpers used here, by their numbers in linux/bpf.h. */
#ifndef KERNEL_H
#define KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>

#define SEC(name) __attribute__((section(name), used))
#undef __always_inline /* linux/stddef.h has a weaker one */
#define __always_inline inline __attribute__((always_inline))

/*
 * As in libbpf's bpf_helpers.h and bpf_endian.h, and le64_to_cpu as in the kernel. Without those
 * headers the objects need clang and the kernel's UAPI headers only.
 */
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_htons(x)   ((__be16)__builtin_bswap16(x))
#define bpf_htonl(x)   ((__be32)__builtin_bswap32(x))
#define bpf_ntohs(x)   __builtin_bswap16(x)
#define le64_to_cpu(x) ((__u64)(x))
#else
#define bpf_htons(x)   ((__be16)(x))
#define bpf_htonl(x)   ((__be32)(x))
#define bpf_ntohs(x)   ((__u16)(x))
#define le64_to_cpu(x) __builtin_bswap64(x)
#endif

/*
 * The compiler computes the variable's value here, once, and forgets what it knows about the value.
 * So it cannot merge the computation with later ones. Each use says what Clang would make of it.
 */
#define opaque(x) asm("" : "+r"(x))

/*
 * The compiler leaves a struct on the stack as it is. It would take it apart otherwise, and each
 * field that finds no register takes eight bytes there.
 */
#define keep_in_memory(x) asm volatile("" : : "r"(&(x)) : "memory")

static void *(*const bpf_map_lookup_elem)(void *map,
					  const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value,
					 __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*const bpf_trace_printk)(const char *format, __u32 size,
				      ...) = (void *)BPF_FUNC_trace_printk;
static long (*const bpf_l4_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to,
					 __u64 flags) = (void *)BPF_FUNC_l4_csum_replace;
static __s64 (*const bpf_csum_update)(struct __sk_buff *skb,
				      __wsum csum) = (void *)BPF_FUNC_csum_update;
static long (*const bpf_skb_vlan_pop)(struct __sk_buff *skb) = (void *)BPF_FUNC_skb_vlan_pop;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*const bpf_skb_change_head)(struct __sk_buff *skb, __u32 room,
					 __u64 flags) = (void *)BPF_FUNC_skb_change_head;
static long (*const bpf_skb_change_tail)(struct __sk_buff *skb, __u32 length,
					 __u64 flags) = (void *)BPF_FUNC_skb_change_tail;
static long (*const bpf_skb_pull_data)(struct __sk_buff *skb,
				       __u32 length) = (void *)BPF_FUNC_skb_pull_data;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *xdp,
					 int delta) = (void *)BPF_FUNC_xdp_adjust_head;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *xdp,
					 int delta) = (void *)BPF_FUNC_xdp_adjust_tail;
static long (*const bpf_fib_lookup)(void *ctx, struct bpf_fib_lookup *params, int size,
				    __u32 flags) = (void *)BPF_FUNC_fib_lookup;
static long (*const bpf_check_mtu)(void *ctx, __u32 ifindex, __u32 *mtu_len, __s32 len_diff,
				   __u64 flags) = (void *)BPF_FUNC_check_mtu;
static __u64 (*const bpf_jiffies64)(void) = (void *)BPF_FUNC_jiffies64;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)BPF_FUNC_get_smp_processor_id;

#endif
