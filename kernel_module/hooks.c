// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two hooks in the driver's path of a fatal replayable fault, and one where an address space begins
 * and ends.
 *
 *   uvm_tools_record_gpu_fatal_fault(gpu, va_space, entry, reason)
 *       says which client faulted, where and why: noted
 *   uvm_hal_*_cancel_faults_va(push, pdb, entry, mode)
 *       emits the cancel: decided here; returns at once when the decision is HOLD
 *   uvm_va_space_destroy(va_space), uvm_va_space_mm_register(va_space)
 *       its pointer means another one from now on; each address space is registered once, before
 *       it can fault
 *
 * The first two run in one thread, the first right before the second, so the note waits in a slot
 * under (thread, entry). The driver also records faults that it does not cancel this way (copy
 * engines): their note is overwritten and nothing is decided. ftrace lets the second function
 * return by pointing the saved instruction pointer at a function that does nothing. So does the
 * first for a fault that was held before, as a tracer would get a record of every replay. The
 * faulting address is the entry's first field in every driver version looked at. No lock of the
 * driver is taken, nothing sleeps; arguments that make no sense (another driver's shape) mean PASS.
 */
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "mg_compat.h"
#include "mps_guard.h"

#ifndef CONFIG_X86_64
#error "mps_guard: the hooks read x86-64 registers"
#endif

#define MG_SLOTS 32
#define MG_REASON_MAX 64u /* the driver has less than ten */

static const char *const pointer_names[] = { "uvm_va_space_destroy", "uvm_va_space_mm_register" };

/* What they saw since load, whether anything was held or not: `mpsr guard test` looks at these. */
static unsigned int faults, cancels_seen, strays;
module_param(faults, uint, 0444);
MODULE_PARM_DESC(faults, "fatal faults that the driver recorded, every replay once (read only)");
module_param(cancels_seen, uint, 0444);
MODULE_PARM_DESC(cancels_seen, "cancels of them that the hook met (read only)");
module_param(strays, uint, 0444);
MODULE_PARM_DESC(strays, "cancels without a record before them, which pass (read only)");

struct note {
	struct task_struct *task; /* only compared */
	unsigned long entry;
	void *va_space;
	u64 va;
	u32 gpu;
	u32 reason;
};

static DEFINE_RAW_SPINLOCK(notes_lock);
static struct note notes[MG_SLOTS];
static unsigned int oldest;

/*
 * The thread's own slot, else a free one, else the oldest: between note and cancel lie
 * microseconds.
 */
static notrace void note_put(const struct note *note)
{
	struct note *slot = NULL;
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&notes_lock, flags);
	for (i = 0; i < MG_SLOTS; i++)
		if (notes[i].task == note->task || (!slot && !notes[i].task))
			slot = &notes[i];
	if (!slot)
		slot = &notes[oldest++ % MG_SLOTS];
	*slot = *note;
	faults++;
	raw_spin_unlock_irqrestore(&notes_lock, flags);
}

static notrace bool note_take(unsigned long entry, struct note *note)
{
	bool found = false;
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&notes_lock, flags);
	for (i = 0; i < MG_SLOTS; i++) {
		if (notes[i].task != current)
			continue;
		*note = notes[i];
		found = note->entry == entry;
		notes[i].task = NULL;
	}
	cancels_seen += found;
	strays += !found;
	raw_spin_unlock_irqrestore(&notes_lock, flags);
	return found;
}

static noinline notrace void do_nothing(void)
{
	barrier();
}

static void notrace on_record(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
			      struct ftrace_regs *fregs)
{
	struct pt_regs *regs = ftrace_get_regs(fregs);
	struct note note = { .task = current };

	if (!regs)
		return;
	note.gpu = (u32)regs->di;
	note.va_space = (void *)regs->si;
	note.entry = regs->dx;
	note.reason = (u32)regs->cx;
	if (!note.va_space || note.reason > MG_REASON_MAX || mg_peek(&note.va, note.entry))
		note.entry = 0; /* fits no cancel, and voids what this thread noted before */
	note_put(&note);
	if (note.entry && mg_space_held(note.va_space))
		regs->ip = (unsigned long)do_nothing;
}

static void notrace on_cancel(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
			      struct ftrace_regs *fregs)
{
	struct pt_regs *regs = ftrace_get_regs(fregs);
	struct note note;

	if (!regs || !regs->cx || !note_take(regs->cx, &note))
		return;
	if (mg_space_fault(note.va_space, note.gpu, note.reason, note.va) == MG_HOLD)
		regs->ip = (unsigned long)do_nothing;
}

static void notrace on_pointer(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
			       struct ftrace_regs *fregs)
{
	struct pt_regs *regs = ftrace_get_regs(fregs);

	if (regs)
		mg_space_gone((void *)regs->di);
}

static struct ftrace_ops pointer_ops = { .func = on_pointer, .flags = FTRACE_OPS_FL_SAVE_REGS };
static struct ftrace_ops record_ops = {
	.func = on_record,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY,
};
static struct ftrace_ops cancel_ops = {
	.func = on_cancel,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY,
};

int mg_hooks_arm(void)
{
	const char *names[MG_CANCELS];
	int count = mg_cancels_find(names);
	int error;

	if (count < 0)
		return count;
	error = mg_hook_all(&pointer_ops, pointer_names, ARRAY_SIZE(pointer_names));
	if (error)
		return error;
	error = mg_hook_all(&cancel_ops, names, (size_t)count);
	if (error)
		goto unhook_pointer;
	error = mg_hook(&record_ops, "uvm_tools_record_gpu_fatal_fault");
	if (!error)
		return 0;
	mg_unhook(&cancel_ops);
unhook_pointer:
	mg_unhook(&pointer_ops);
	return error;
}

void mg_hooks_let_pass(void)
{
	mg_unhook(&record_ops);
	mg_unhook(&cancel_ops);
}

void mg_hooks_disarm(void)
{
	mg_unhook(&pointer_ops);
}
