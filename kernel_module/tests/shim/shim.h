/* SPDX-License-Identifier: GPL-2.0-only */
/* The ioctls of the shim driver /dev/shim_uvm, for the test program. */
#ifndef SHIM_H
#define SHIM_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* UUIDs 5a5a5a5a0001…0b and 5b5a5a5a0001…0b; one is cancelled as Volta's, one as Hopper's */
#define SHIM_GPUS 2
#define SHIM_LATE 0x7e0000000000ull /* where an address space faults that is being torn down */

/*
 * Accesses of one GPU in the file's address space, all at once: `pages` of them (0 counts as 1),
 * `stride` bytes apart. Returns when all are served, one has been cancelled, or they have been
 * replayed too often.
 */
struct shim_fault {
	__u64 va;
	__u32 reason; /* what the driver would call it */
	__u32 gpu; /* 0 or 1 */
	__u32 copy; /* 1: a copy engine: the driver records the fault and ends the channel */
	__u32 replays; /* out: rounds of the bottom half */
	__u32 cancels; /* out: 1 when any was cancelled */
	__u32 served; /* out: 1 when all were served */
	__u32 pages;
	__u32 events; /* out: FatalFault events for tools */
	__u64 stride;
};

/* A GPU's access that the driver can serve: how long it waited for the bottom half. */
struct shim_touch {
	__u32 gpu;
	__u32 waited_us; /* out */
};

struct shim_range {
	__u64 base;
	__u64 length;
	__u64 page; /* SHIM_MAP: size of the mapping's pages; 0: a sparse mapping */
};

struct shim_stats {
	__u64 cancels; /* since load: each would have ended every client of the GPU */
	__u64 records;
	__u64 alive; /* address spaces */
	__u64 sparse_bytes; /* of the file's own address space, on GPU 0 */
	__u64 lowest_sparse;
	__u64 address; /* of the address space in the kernel, scrambled: equal for equal pointers */
	__u64 bare_calls; /* since load: without a thread context, or while the GPUs sleep */
};

#define SHIM_FAULT _IOWR('S', 1, struct shim_fault)
#define SHIM_RANGE \
	_IOW('S', 2, struct shim_range) /* managed memory: nothing can be mapped over it */
#define SHIM_STATS _IOR('S', 3, struct shim_stats)
#define SHIM_REGISTER _IO('S', 4) /* argument: a GPU that this address space has too (it has 0) */
#define SHIM_TOUCH _IOWR('S', 5, struct shim_touch)
#define SHIM_EXTERNAL _IOW('S', 6, struct shim_range) /* errno: 0, EEXIST or EINVAL */
#define SHIM_MAP _IOW('S', 7, struct shim_range) /* on GPU 0, into an external range; the same */
#define SHIM_POWER _IO('S', 8) /* argument: 1 the GPUs go to sleep, 0 they wake */

#endif
