// SPDX-License-Identifier: GPL-2.0-only
/*
 * The bottom half, one at a time for each GPU and for all its clients: in each round every distinct
 * page of a client that cannot be served is recorded and cancelled, in ascending order, under the
 * client's lock; what was not cancelled faults again in the next round. A cancel that is emitted is
 * counted: on a GPU it would end every client. `push_us` is what one cancel costs the driver, which
 * waits for it on the GPU, `buffer` how many faults come in one round.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>

#include "space.h"

#define REPLAYS 20000
#define PAGE 4096ull

static unsigned int push_us;
module_param(push_us, uint, 0600);
static unsigned int buffer = 4096;
module_param(buffer, uint, 0600);

atomic64_t shim_cancels, shim_records;
static struct mutex service_lock[SHIM_GPUS] = { __MUTEX_INITIALIZER(service_lock[0]),
						__MUTEX_INITIALIZER(service_lock[1]) };

/* The address is the first field. */
struct fault_entry {
	u64 address;
	bool cancelled;
};

struct pdb {
	u64 address;
	u64 aperture;
};

void uvm_tools_record_gpu_fatal_fault(u32 gpu, struct va_space *space,
				      const struct fault_entry *entry, u32 reason);
noinline void uvm_tools_record_gpu_fatal_fault(u32 gpu, struct va_space *space,
					       const struct fault_entry *entry, u32 reason)
{
	down_read(&space->tools_lock);
	space->events++;
	up_read(&space->tools_lock);
	atomic64_inc(&shim_records);
}

static void cancel(struct fault_entry *entry)
{
	atomic64_inc(&shim_cancels);
	entry->cancelled = true;
}

void uvm_hal_volta_cancel_faults_va(void *push, struct pdb pdb, struct fault_entry *entry,
				    u32 mode);
noinline void uvm_hal_volta_cancel_faults_va(void *push, struct pdb pdb, struct fault_entry *entry,
					     u32 mode)
{
	cancel(entry);
}

void uvm_hal_hopper_cancel_faults_va(void *push, struct pdb pdb, struct fault_entry *entry,
				     u32 mode);
noinline void uvm_hal_hopper_cancel_faults_va(void *push, struct pdb pdb, struct fault_entry *entry,
					      u32 mode)
{
	cancel(entry);
}

#ifdef SHIM_NEW_CANCEL
void uvm_hal_unheard_cancel_faults_va(void *push, struct pdb pdb, struct fault_entry *entry,
				      u32 mode);
noinline void uvm_hal_unheard_cancel_faults_va(void *push, struct pdb pdb,
					       struct fault_entry *entry, u32 mode)
{
	cancel(entry);
}
#endif

/* What older GPUs have in that place; nobody calls it. */
void uvm_hal_maxwell_cancel_faults_va_unsupported(void *push, struct pdb pdb,
						  struct fault_entry *entry, u32 mode);
noinline void uvm_hal_maxwell_cancel_faults_va_unsupported(void *push, struct pdb pdb,
							   struct fault_entry *entry, u32 mode)
{
}

static bool cancel_one(struct bottom_half *half, u64 va)
{
	struct shim_fault *fault = &half->fault;
	struct fault_entry entry = { .address = va & ~(PAGE - 1) };
	struct pdb pdb = { 1, 1 };

	if (fault->pages <= 1)
		entry.address = va;
	uvm_tools_record_gpu_fatal_fault(fault->gpu + 1, half->space, &entry, fault->reason);
	if (fault->copy) /* the driver ends the channel by another way */
		return true;
	if (fault->gpu)
		uvm_hal_hopper_cancel_faults_va(half, pdb, &entry, 0);
	else
		uvm_hal_volta_cancel_faults_va(half, pdb, &entry, 0);
	udelay(push_us);
	return entry.cancelled;
}

/* How many pages could not be served. */
static unsigned int round_of(struct bottom_half *half)
{
	struct shim_fault *fault = &half->fault;
	u64 stride = fault->stride ? fault->stride : PAGE;
	u64 at = 0, pages = fault->pages ? fault->pages : 1;
	unsigned int found = 0;

	while (at < pages && found < buffer) {
		u64 va = fault->va + at * stride;
		const struct mapping *mapping = space_sparse_at(half->space, va, fault->gpu);

		if (mapping) { /* so are the others in it */
			at += (mapping->pte.base + mapping->pte.length - va + stride - 1) / stride;
			continue;
		}
		fault->cancels |= cancel_one(half, va);
		found++;
		at++;
		cond_resched();
	}
	return found;
}

static int service(void *data)
{
	struct bottom_half *half = data;
	struct shim_fault *fault = &half->fault;
	struct va_space *space = half->space;

	while (!fault->cancels && !fault->served && fault->replays < REPLAYS) {
		unsigned int left;
		bool dead;

		power_wait_awake();
		mutex_lock(&service_lock[fault->gpu]);
		down_read(&space->lock);
		dead = space->dead;
		left = dead ? 0 : round_of(half);
		up_read(&space->lock);
		mutex_unlock(&service_lock[fault->gpu]);
		complete_all(&half->began);
		if (dead)
			break;
		fault->served = !left && !fault->cancels;
		fault->replays += left && !fault->copy;
		if (left && !fault->cancels)
			usleep_range(50, 150);
	}
	fault->events = space->events;
	complete(&half->done);
	return 0;
}

int service_begin(struct bottom_half *half)
{
	struct task_struct *thread;

	init_completion(&half->began);
	init_completion(&half->done);
	half->fault.replays = half->fault.cancels = half->fault.served = 0;
	half->space->events = 0;
	thread = kthread_run(service, half, "UVM GPU%u BH", half->fault.gpu + 1);
	return PTR_ERR_OR_ZERO(thread);
}

void service_touch(struct shim_touch *touch)
{
	ktime_t began = ktime_get();

	mutex_lock(&service_lock[touch->gpu]);
	mutex_unlock(&service_lock[touch->gpu]);
	touch->waited_us = (u32)ktime_us_delta(ktime_get(), began);
}
