// SPDX-License-Identifier: GPL-2.0-only
/*
 * A sparse mapping under the faulting address: reads give 0, writes are dropped, neither faults; no
 * page stands behind it, so nothing can leak. Made by the driver's own entry points of two public
 * ioctls (entry.c), called on the client's own file, so the driver's locks, lists and teardown are
 * its own business. The driver maps sparse at multiples of 64 KiB only: an address that shares them
 * with memory of the client in smaller pages cannot be sunk.
 *
 * Null page: the driver refuses a range at 0, so another range stands in and, for this thread only,
 * a hook on the function that fills in page table ranges moves its start to 0.
 */
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "mg_compat.h"
#include "mps_guard.h"

#define MG_STAND_IN (1ull << 46)

static u8 gpus[MG_MAX_GPUS][16];
static unsigned int gpu_count;
module_param_named(gpus, gpu_count, uint, 0444);
MODULE_PARM_DESC(gpus, "how many it was told of (read only): without any nothing can be sunk");
static DEFINE_SPINLOCK(gpus_lock);

static DEFINE_MUTEX(null_mutex); /* one thread at a time: the hook knows one */
static struct task_struct *null_thread;
static bool null_armed;

static void notrace on_range_vec(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
				 struct ftrace_regs *fregs)
{
	struct pt_regs *regs = ftrace_get_regs(fregs);

	if (regs && READ_ONCE(null_thread) == current)
		regs->si = 0;
}

static struct ftrace_ops null_ops = { .func = on_range_vec, .flags = FTRACE_OPS_FL_SAVE_REGS };

int mg_sink_learn_gpu(const u8 uuid[16])
{
	int error = -ENOSPC;
	unsigned int i;

	spin_lock(&gpus_lock);
	for (i = 0; i < gpu_count; i++)
		if (!memcmp(gpus[i], uuid, 16))
			error = 0;
	if (error && gpu_count < MG_MAX_GPUS) {
		memcpy(gpus[gpu_count], uuid, 16);
		smp_store_release(&gpu_count, gpu_count + 1); /* its bytes are there first */
		error = 0;
	}
	spin_unlock(&gpus_lock);
	return error;
}

/*
 * On every GPU that this address space has; the driver refuses those it has not. One that took it
 * is enough: if it was not the one that faulted, the fault repeats and the policy lets it pass.
 */
static bool map_on_gpus(struct file *file, struct mg_window window)
{
	unsigned int i, count, mapped = 0;

	count = smp_load_acquire(&gpu_count); /* pairs with the release in mg_sink_learn_gpu */
	for (i = 0; i < count; i++)
		mapped += mg_entry_map(file, window, gpus[i]) == MG_OK;
	return mapped > 0;
}

/*
 * It stands far from where programs have memory, in a hole of the address space. A fault that meets
 * it there all the same is not sunk: what is mapped for the null page would be replaced.
 */
static enum mg_why sink_null_page(struct mg_entry *entry, struct file *file,
				  struct mg_window *window)
{
	struct mg_window stand_in = { MG_STAND_IN, MG_SMALLEST };
	bool sunk;
	int i;

	for (i = 0; i < 8 && mg_entry_create(file, stand_in) != MG_OK; i++)
		stand_in.base += MG_REGION;
	if (i == 8)
		return MG_WHY_NO_ROOM;
	entry->stand_in = stand_in.base;
	mutex_lock(&null_mutex);
	WRITE_ONCE(null_thread, current);
	sunk = map_on_gpus(file, stand_in);
	WRITE_ONCE(null_thread, NULL);
	mutex_unlock(&null_mutex);
	*window = (struct mg_window){ 0, MG_SMALLEST };
	return sunk ? MG_WHY_HELD : MG_WHY_NO_ROOM;
}

/* Something that is there: a hole in a range, or a mapping that does not allow the access. */
static enum mg_why sink_in_range(const struct mg_entry *entry, struct file *file, u64 va,
				 struct mg_window *window)
{
	u64 bytes;

	for (bytes = MG_SMALLEST; bytes <= MG_REGION; bytes *= MG_REGION / MG_SMALLEST) {
		*window = mg_window_around(&entry->policy, va, bytes);
		if (!window->length || (entry->stand_in && mg_inside(*window, entry->stand_in)))
			continue;
		if (map_on_gpus(file, *window))
			return MG_WHY_HELD;
	}
	return MG_WHY_NO_ROOM;
}

/*
 * The largest window around the address, of `bytes` at first, that collides with nothing, else the
 * hole in what is there.
 */
static enum mg_why sink_inside(struct mg_entry *entry, struct file *file, u64 va, u64 bytes,
			       struct mg_window *window)
{
	if (va < MG_SMALLEST)
		return sink_null_page(entry, file, window);
	for (; bytes >= MG_SMALLEST; bytes /= 2) {
		u32 status;

		*window = mg_window_around(&entry->policy, va, bytes);
		if (!window->length)
			break;
		status = mg_entry_create(file, *window);
		if (status == MG_OK)
			return map_on_gpus(file, *window) ? MG_WHY_HELD : MG_WHY_NO_ROOM;
		if (status != MG_ADDRESS_IN_USE)
			return MG_WHY_NO_ROOM;
	}
	return sink_in_range(entry, file, va, window);
}

enum mg_why mg_sink(struct mg_entry *entry, struct file *file, u64 va, u64 bytes,
		    struct mg_window *window)
{
	void *context = mg_entry_begin();
	enum mg_why why;

	if (!context)
		return MG_WHY_ASLEEP;
	why = sink_inside(entry, file, va, bytes, window);
	mg_entry_end(context);
	if (why != MG_WHY_HELD)
		window->length = 0;
	return why;
}

int mg_sink_init(void)
{
	if (!mg_limits_now().null_page)
		return 0;
	null_armed = !mg_hook(&null_ops, "uvm_page_table_range_vec_init");
	if (!null_armed)
		mg_null_page_refuse();
	return 0;
}

void mg_sink_exit(void)
{
	if (null_armed)
		mg_unhook(&null_ops);
}
