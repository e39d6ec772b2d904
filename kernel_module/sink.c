// SPDX-License-Identifier: GPL-2.0-only
/*
 * A sparse mapping under the faulting address: reads give 0, writes are dropped, neither faults; no
 * page stands behind it, so nothing can leak. Made by the driver's own entry points of two public
 * ioctls, called on the client's own file, so the driver's locks, lists and teardown are its own
 * business. The argument layouts below are the ioctls' published sizes and offsets in our own
 * words, with room behind them in case a driver's are longer.
 *
 * Null page: the driver refuses a range at 0, so a range at [64K, 128K) is made and, for this
 * thread only, a probe on the function that fills in page table ranges moves its start to 0.
 */
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "mg_compat.h"
#include "mps_guard.h"

#define NV_STATUS_OK 0x00u
#define NV_STATUS_ADDRESS_IN_USE 0x68u

struct create_external_range {
	u64 base;
	u64 length;
	u32 status;
	u8 room[64];
};

struct map_external_sparse {
	u64 base;
	u64 length;
	u8 gpu[16];
	u32 status;
	u8 room[64];
};

static u32 (*create_range)(struct create_external_range *params, struct file *file);
static u32 (*map_sparse)(struct map_external_sparse *params, struct file *file);

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
static bool map_on_gpus(struct file *file, u64 base, u64 length)
{
	unsigned int i, count, mapped = 0;

	count = smp_load_acquire(&gpu_count); /* pairs with the release in mg_sink_learn_gpu */
	for (i = 0; i < count; i++) {
		struct map_external_sparse params = { .base = base, .length = length };

		memcpy(params.gpu, gpus[i], sizeof(params.gpu));
		mapped += map_sparse(&params, file) == NV_STATUS_OK;
	}
	return mapped > 0;
}

static u32 create(struct file *file, struct mg_window window)
{
	struct create_external_range params = { .base = window.base, .length = window.length };

	return create_range(&params, file);
}

static bool sink_null_page(struct file *file, struct mg_window *window)
{
	struct mg_window stand_in = { MG_SMALLEST, MG_SMALLEST };
	bool sunk;

	*window = (struct mg_window){ 0, MG_SMALLEST };
	if (create(file, stand_in) != NV_STATUS_OK)
		return false;
	mutex_lock(&null_mutex);
	WRITE_ONCE(null_thread, current);
	sunk = map_on_gpus(file, stand_in.base, stand_in.length);
	WRITE_ONCE(null_thread, NULL);
	mutex_unlock(&null_mutex);
	return sunk;
}

/*
 * The largest window around the address that collides with nothing, else the hole in what is there.
 */
bool mg_sink(struct file *file, u64 va, u32 windows_before, struct mg_window *window)
{
	struct mg_limits limits = mg_limits_now();
	u64 bytes;

	if (va < MG_SMALLEST)
		return sink_null_page(file, window);
	for (bytes = mg_first_window(&limits, windows_before); bytes >= MG_SMALLEST; bytes /= 2) {
		u32 status;

		*window = mg_window_around(va, bytes);
		if (!window->length)
			break;
		status = create(file, *window);
		if (status == NV_STATUS_OK)
			return map_on_gpus(file, window->base, window->length);
		if (status != NV_STATUS_ADDRESS_IN_USE)
			return false;
	}
	for (bytes = MG_SMALLEST; bytes <= (2ull << 20); bytes *= 32) {
		*window = mg_window_around(va, bytes);
		if (window->length && map_on_gpus(file, window->base, window->length))
			return true;
	}
	return false;
}

int mg_sink_init(void)
{
	create_range = mg_symbol("uvm_api_create_external_range");
	map_sparse = mg_symbol("uvm_api_map_external_sparse");
	if (!create_range || !map_sparse) {
		pr_err("mps_guard: driver: anchor missing: %s\n",
		       create_range ? "uvm_api_map_external_sparse"
				    : "uvm_api_create_external_range");
		return -ENOENT;
	}
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
