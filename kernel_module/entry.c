// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way into the driver. Two of its functions are called past its ioctls, with what these take:
 * a context for the thread, by the driver's own functions, and its lock against sleep.
 *
 * That lock cannot be had by name. But the driver is told of sleep by one function and of waking by
 * another; hooked, they first wait until no call of ours is under way, and none begins until they
 * have come back. The argument layouts are the ioctls' published sizes and offsets in our own
 * words, with room behind them in case a driver's are longer; a context gets a page, more than any
 * driver's needs.
 */
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "mg_compat.h"
#include "mps_guard.h"

#define MG_LANDING_PAD 16ul

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
static bool (*context_add)(void *context);
static void (*context_remove)(void *context);
static u32 (*suspend_driver)(void);
static u32 (*resume_driver)(void);

static DECLARE_RWSEM(power); /* read: a call is under way */
static bool asleep;
static DEFINE_MUTEX(transition); /* between being asleep and not */
static struct task_struct *inside; /* its call is ours, to the driver's own function */

void *mg_entry_begin(void)
{
	void *context = kzalloc(PAGE_SIZE, GFP_KERNEL);

	down_read(&power);
	if (context && !READ_ONCE(asleep) && context_add(context))
		return context;
	up_read(&power);
	kfree(context);
	return NULL;
}

void mg_entry_end(void *context)
{
	context_remove(context);
	up_read(&power);
	kfree(context);
}

u32 mg_entry_create(struct file *file, struct mg_window window)
{
	struct create_external_range params = { .base = window.base, .length = window.length };

	return create_range(&params, file);
}

u32 mg_entry_map(struct file *file, struct mg_window window, const u8 gpu[16])
{
	struct map_external_sparse params = { .base = window.base, .length = window.length };

	memcpy(params.gpu, gpu, sizeof(params.gpu));
	return map_sparse(&params, file);
}

/* Nobody begins from now on, also not past a writer that waits; who has begun is waited for. */
static void fall_asleep(void)
{
	WRITE_ONCE(asleep, true);
	down_write(&power);
	up_write(&power);
}

static u32 pass_on(u32 (*function)(void))
{
	u32 status;

	WRITE_ONCE(inside, current);
	status = function();
	WRITE_ONCE(inside, NULL);
	return status;
}

static u32 suspend_after_us(void)
{
	u32 status;

	mutex_lock(&transition);
	fall_asleep();
	status = pass_on(suspend_driver);
	if (status != MG_OK)
		WRITE_ONCE(asleep, false);
	mutex_unlock(&transition);
	module_put(THIS_MODULE);
	return status;
}

static u32 resume_before_us(void)
{
	u32 status;

	mutex_lock(&transition);
	status = pass_on(resume_driver);
	WRITE_ONCE(asleep, false);
	mutex_unlock(&transition);
	module_put(THIS_MODULE);
	return status;
}

/*
 * To a function of ours instead, which keeps the module until it has come back. The hook may lie
 * behind the function's landing pad.
 */
static void notrace on_power(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
			     struct ftrace_regs *fregs)
{
	struct pt_regs *regs = ftrace_get_regs(fregs);
	bool suspends = ip - (unsigned long)suspend_driver < MG_LANDING_PAD;

	if (regs && READ_ONCE(inside) != current && try_module_get(THIS_MODULE))
		regs->ip = (unsigned long)(suspends ? suspend_after_us : resume_before_us);
}

static const char *const power_names[] = { "uvm_suspend_entry", "uvm_resume_entry" };
static struct ftrace_ops power_ops = {
	.func = on_power,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY,
};

static int look_up(void)
{
	const struct {
		const char *name;
		void *to;
	} functions[] = {
		{ "uvm_api_create_external_range", &create_range },
		{ "uvm_api_map_external_sparse", &map_sparse },
		{ "uvm_thread_context_add", &context_add },
		{ "uvm_thread_context_remove", &context_remove },
		{ "uvm_suspend_entry", &suspend_driver },
		{ "uvm_resume_entry", &resume_driver },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(functions); i++) {
		void *address = mg_symbol(functions[i].name);

		if (!address)
			return mg_missing(functions[i].name);
		*(void **)functions[i].to = address;
	}
	return 0;
}

int mg_entry_init(void)
{
	int error = look_up();

	if (error)
		return error;
	return mg_hook_all(&power_ops, power_names, ARRAY_SIZE(power_names));
}

void mg_entry_exit(void)
{
	mg_unhook(&power_ops);
}
