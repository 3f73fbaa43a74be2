/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The daemon's sign of life, and the generation. The daemon runs bpfw_beat when it has handled
 * everything that it had been told. When the last beat is too old, or in a pause, all packets go to
 * the stack.
 *
 * A beat that comes too late does not count: the daemon may have been stopped after it had handled
 * everything and before it said so. 0 means no beat. The daemon writes it in a pause, to begin
 * anew.
 */
#ifndef HEARTBEAT_H
#define HEARTBEAT_H

#include "maps.h"
#include "settings.h"

/* A beat of another CPU may be a jiffy ahead of now: the difference is signed. */
static __always_inline int is_too_old(__u64 beat, __u64 now)
{
	return (__s64)(now - beat) > (__s64)settings.beat_limit;
}

SEC("syscall") int bpfw_beat(void *ctx __attribute__((unused)))
{
	__u64 now = bpf_jiffies64();

	if (last_beat && is_too_old(last_beat, now))
		return 1;
	last_beat = now;
	return 0;
}

/*
 * Both halves of the first word by one load, and before any look-up: what the look-ups find is at
 * least this new.
 */
static __always_inline void read_generation(struct bpfw_generation *generation)
{
	*(__u64 *)generation = *(volatile __u64 *)&generation_now;
}

/* The daemon's only way to write the generation: a map's update is no single store. */
SEC("syscall") int bpfw_set_generation(struct bpfw_generation *next)
{
	generation_now.period = next->period;
	*(volatile __u64 *)&generation_now = *(__u64 *)next;
	return 0;
}

/* Whether the devices and routes are still what they were when the packet's walk began. */
static __always_inline int is_current(__u32 generation)
{
	return generation_now.current == generation;
}

/* No beat, 0, is too old, too: the kernel's jiffies begin near 2^32. */
static __always_inline int is_late(__u64 now)
{
	return is_too_old(last_beat, now);
}

static __always_inline int is_paused(__u32 generation)
{
	return generation == BPFW_PAUSED;
}

static __always_inline int check_daemon(__u64 now, __u32 generation)
{
	if (is_paused(generation))
		return BPFW_PASS_PAUSED;
	return is_late(now) ? BPFW_PASS_HEARTBEAT : BPFW_GO_ON;
}

#endif
