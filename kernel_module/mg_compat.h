/* SPDX-License-Identifier: GPL-2.0-only */
/* What is elsewhere, or called otherwise, in other kernels. */
#ifndef MG_COMPAT_H
#define MG_COMPAT_H

#include <linux/ftrace.h>
#include <linux/version.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#include <linux/hex.h> /* hex2bin, which kernel.h may have no more */
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
/* Hooks got the registers themselves. */
#define ftrace_regs pt_regs
static inline struct pt_regs *ftrace_get_regs(struct pt_regs *regs)
{
	return regs;
}
#endif

#endif
