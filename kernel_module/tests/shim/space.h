/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of the shim know of each other.
 *
 *   main.c     the device, ioctls
 *   service.c  the bottom half: rounds of faults, cancels
 *   api.c      what ioctls of the driver do, which the guard calls as well: ranges, mappings
 *   space.c    address spaces, their ranges and mappings; how they end
 *   power.c    thread contexts, sleep
 */
#ifndef SPACE_H
#define SPACE_H

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/types.h>

#include "shim.h"

#define TAG 2ul
#define OK 0x00u
#define INVALID_ADDRESS 0x1eu
#define INVALID_DEVICE 0x26u
#define NO_MEMORY 0x51u
#define IN_USE 0x68u
#define ALIGNED 65536u /* of sparse mappings */

/* Found and replaced by `base` and `length`; page table entries are where `pte` says. */
struct mapping {
	struct list_head link;
	u64 base, length;
	u64 page; /* it can be split at multiples of this */
	bool sparse;
	struct extent {
		u64 base, length;
	} pte;
};

struct area {
	struct list_head link;
	u64 base, length;
	bool external;
	struct list_head mappings[SHIM_GPUS];
};

struct va_space {
	struct rw_semaphore lock; /* ranges: read to look and to map, write to change */
	struct mutex map_lock; /* mappings, under `lock` */
	struct rw_semaphore tools_lock;
	struct list_head ranges;
	bool has_gpu[SHIM_GPUS];
	bool dead; /* under `lock`: no GPU is registered any more */
	u32 events; /* of the newest fault, for tools */
};

struct bottom_half {
	struct va_space *space;
	struct shim_fault fault;
	struct completion began, done;
};

/* space.c */
extern atomic64_t shim_alive;
struct va_space *space_create(void);
u32 space_add(struct va_space *space, u64 base, u64 length, bool external);
u32 space_map(struct va_space *space, int gpu, const struct mapping *wanted);
const struct mapping *space_sparse_at(struct va_space *space, u64 va, u32 gpu); /* lock held */
void space_stats(struct va_space *space, struct shim_stats *answer);
void space_exit(void);
void uvm_va_space_destroy(struct va_space *space);
u32 uvm_va_space_mm_register(struct va_space *space);

/* api.c */
u32 shim_create(struct va_space *space, const struct shim_range *range);
u32 shim_map(struct va_space *space, const struct shim_range *range);

/* service.c */
extern atomic64_t shim_cancels, shim_records;
int service_begin(struct bottom_half *half);
void service_touch(struct shim_touch *touch);

/* power.c */
struct thread_context {
	struct list_head link;
	struct task_struct *task;
};

extern atomic64_t shim_bare_calls;
bool uvm_thread_context_add(struct thread_context *context);
void uvm_thread_context_remove(struct thread_context *context);
u32 uvm_suspend_entry(void);
u32 uvm_resume_entry(void);
bool power_enter(void); /* as an ioctl does: false while the GPUs sleep */
void power_leave(void);
void power_check(void); /* a call into the driver: is it allowed to be here? */
void power_wait_awake(void);

#endif
