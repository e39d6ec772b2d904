// SPDX-License-Identifier: GPL-2.0-only
/*
 * What every way into the driver has to take: a context for the thread, and the lock that keeps
 * callers out while the GPUs sleep. The driver's own ioctls take both; who calls its functions past
 * them is counted.
 */
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

#include "space.h"

atomic64_t shim_bare_calls;
static DECLARE_RWSEM(power_lock);
static bool asleep;
static DECLARE_WAIT_QUEUE_HEAD(awake);
static LIST_HEAD(contexts);
static DEFINE_SPINLOCK(contexts_lock);

static bool present(void)
{
	struct thread_context *context;

	list_for_each_entry(context, &contexts, link)
		if (context->task == current)
			return true;
	return false;
}

noinline bool uvm_thread_context_add(struct thread_context *context)
{
	bool added;

	spin_lock(&contexts_lock);
	added = !present();
	if (added) {
		context->task = current;
		list_add(&context->link, &contexts);
	}
	spin_unlock(&contexts_lock);
	return added;
}

noinline void uvm_thread_context_remove(struct thread_context *context)
{
	spin_lock(&contexts_lock);
	list_del(&context->link);
	spin_unlock(&contexts_lock);
}

void power_check(void)
{
	bool known;

	spin_lock(&contexts_lock);
	known = present();
	spin_unlock(&contexts_lock);
	if (!known || READ_ONCE(asleep))
		atomic64_inc(&shim_bare_calls);
}

bool power_enter(void)
{
	if (!down_read_trylock(&power_lock))
		return false;
	if (!asleep)
		return true;
	up_read(&power_lock);
	return false;
}

void power_leave(void)
{
	up_read(&power_lock);
}

void power_wait_awake(void)
{
	wait_event(awake, !READ_ONCE(asleep));
}

noinline u32 uvm_suspend_entry(void)
{
	down_write(&power_lock);
	WRITE_ONCE(asleep, true);
	up_write(&power_lock);
	return OK;
}

noinline u32 uvm_resume_entry(void)
{
	WRITE_ONCE(asleep, false);
	wake_up_all(&awake);
	return OK;
}
