/* SPDX-License-Identifier: GPL-2.0-only */
/* The ioctls of the shim driver /dev/shim_uvm, for the test program. */
#ifndef SHIM_H
#define SHIM_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* A GPU access by the file's address space. It returns when it is served, cancelled or has been replayed too often. */
struct shim_fault {
	__u64 va;
	__u32 reason; /* what the driver would call it */
	__u32 replays; /* out */
	__u32 cancels; /* out */
	__u32 served; /* out */
};

struct shim_range {
	__u64 base;
	__u64 length;
};

struct shim_stats {
	__u64 cancels; /* since load: each would have ended every client of the GPU */
	__u64 records;
	__u64 alive; /* address spaces */
	__u64 sparse_bytes; /* of the file's own address space */
	__u64 lowest_sparse;
};

#define SHIM_FAULT _IOWR('S', 1, struct shim_fault)
#define SHIM_RANGE _IOW('S', 2, struct shim_range)
#define SHIM_STATS _IOR('S', 3, struct shim_stats)

#endif
