// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two hooks in the driver's path of a fatal replayable fault.
 *
 *   uvm_tools_record_gpu_fatal_fault(gpu, va_space, entry, reason)   says which client faulted, where and why: here it is decided
 *   uvm_hal_*_cancel_faults_va(push, pdb, entry, mode)               emits the cancel: returns at once when the decision was HOLD
 *
 * Both run in one thread, the first right before the second, so the decision waits in a slot under (thread, entry). ftrace lets the
 * second return by pointing the saved instruction pointer at a function that does nothing. The faulting address is the entry's first
 * field in every driver version looked at. No lock of the driver is taken, nothing sleeps.
 */
#include <linux/ftrace.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "mps_guard.h"

#define MG_SLOTS 32

static const char record_name[] = "uvm_tools_record_gpu_fatal_fault";
/* One per generation of GPU; a driver has some of them. */
static const char *const cancel_names[] = {
	"uvm_hal_volta_cancel_faults_va",
	"uvm_hal_turing_cancel_faults_va",
	"uvm_hal_hopper_cancel_faults_va",
};

struct slot {
	struct task_struct *task;
	unsigned long entry;
};

static DEFINE_RAW_SPINLOCK(slots_lock);
static struct slot slots[MG_SLOTS];

static notrace bool slot_put(unsigned long entry)
{
	unsigned long flags;
	bool put = false;
	int i;

	raw_spin_lock_irqsave(&slots_lock, flags);
	for (i = 0; i < MG_SLOTS && !put; i++) {
		if (slots[i].task && slots[i].task != current)
			continue;
		slots[i].task = current;
		slots[i].entry = entry;
		put = true;
	}
	raw_spin_unlock_irqrestore(&slots_lock, flags);
	return put;
}

static notrace bool slot_take(unsigned long entry)
{
	unsigned long flags;
	bool held = false;
	int i;

	raw_spin_lock_irqsave(&slots_lock, flags);
	for (i = 0; i < MG_SLOTS; i++) {
		if (slots[i].task != current)
			continue;
		held = held || slots[i].entry == entry;
		slots[i].task = NULL;
	}
	raw_spin_unlock_irqrestore(&slots_lock, flags);
	return held;
}

static void notrace on_record(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	struct pt_regs *regs = ftrace_get_regs(fregs);
	void *va_space;
	unsigned long entry;

	if (!regs)
		return;
	va_space = (void *)regs->si;
	entry = regs->dx;
	slot_take(0); /* whatever an earlier fault of this thread left is void */
	if (!va_space || !entry)
		return;
	if (mg_space_fault(va_space, (u32)regs->di, (u32)regs->cx, *(u64 *)entry) == MG_HOLD)
		slot_put(entry);
}

static noinline notrace void do_nothing(void)
{
	barrier();
}

static void notrace on_cancel(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	struct pt_regs *regs = ftrace_get_regs(fregs);

	if (regs && slot_take(regs->cx))
		regs->ip = (unsigned long)do_nothing;
}

static struct ftrace_ops record_ops = { .func = on_record, .flags = FTRACE_OPS_FL_SAVE_REGS };
static struct ftrace_ops cancel_ops = { .func = on_cancel, .flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY };

static int anchor(struct ftrace_ops *ops, const char *name, bool reset)
{
	unsigned long address = (unsigned long)mg_symbol(name);
	int error;

	if (!address)
		return -ENOENT;
	error = ftrace_set_filter_ip(ops, address, 0, reset);
	if (error)
		pr_err("mps_guard: driver: function cannot be traced: %s: %d\n", name, error);
	return error;
}

int mg_hooks_arm(void)
{
	int error = anchor(&record_ops, record_name, true);
	unsigned int found = 0;
	size_t i;

	if (error) {
		pr_err("mps_guard: driver: anchor missing: %s\n", record_name);
		return error;
	}
	for (i = 0; i < ARRAY_SIZE(cancel_names); i++) {
		error = anchor(&cancel_ops, cancel_names[i], !found);
		if (error && error != -ENOENT)
			goto free_filters;
		found += !error;
	}
	error = -ENOENT;
	if (!found) {
		pr_err("mps_guard: driver: anchor missing: uvm_hal_*_cancel_faults_va\n");
		goto free_filters;
	}
	error = register_ftrace_function(&cancel_ops);
	if (error) {
		pr_err("mps_guard: kernel: cancel cannot be hooked, a live patch may hold it: %d\n", error);
		goto free_filters;
	}
	error = register_ftrace_function(&record_ops);
	if (error) {
		unregister_ftrace_function(&cancel_ops);
		goto free_filters;
	}
	return 0;

free_filters:
	ftrace_free_filter(&record_ops);
	ftrace_free_filter(&cancel_ops);
	return error;
}

void mg_hooks_disarm(void)
{
	unregister_ftrace_function(&record_ops);
	unregister_ftrace_function(&cancel_ops);
	ftrace_free_filter(&record_ops);
	ftrace_free_filter(&cancel_ops);
}
