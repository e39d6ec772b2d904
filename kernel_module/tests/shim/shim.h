/* SPDX-License-Identifier: GPL-2.0-only */
/* The ioctls of the shim driver /dev/shim_uvm, for the test program. */
#ifndef SHIM_H
#define SHIM_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define SHIM_GPUS 2 /* UUIDs 5a5a5a5a0001…0b and 5b5a5a5a0001…0b */

/*
 * A GPU's access in the file's address space. Returns when it is served, cancelled or has been
 * replayed too often.
 */
struct shim_fault {
	__u64 va;
	__u32 reason; /* what the driver would call it */
	__u32 gpu; /* 0 or 1 */
	__u32 copy; /* 1: a copy engine: the driver records the fault and ends the channel */
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
	__u64 sparse_bytes; /* of the file's own address space, on GPU 0 */
	__u64 lowest_sparse;
	__u64 address; /* of the address space in the kernel, scrambled: equal for equal pointers */
};

#define SHIM_FAULT _IOWR('S', 1, struct shim_fault)
#define SHIM_RANGE _IOW('S', 2, struct shim_range)
#define SHIM_STATS _IOR('S', 3, struct shim_stats)
#define SHIM_REGISTER _IO('S', 4) /* argument: a GPU that this address space has too (it has 0) */

#endif
