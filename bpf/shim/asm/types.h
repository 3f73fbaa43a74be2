/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The BPF target has no asm/ headers of its own, and the host's would bring the host's byte
 * order into the other one's object.
 */
#include <asm-generic/types.h>
