// SPDX-License-Identifier: GPL-2.0-only
/*
 * The worker that takes one faulting address space from held to sunk: who holds it, may that user
 * have another incident, mappings under all addresses that faulted meanwhile, the result.
 *
 * The rate is a user's own, so it is asked for here and not in the hook: only here is known whose
 * fault it is. Until then the fault is held, for as long as the look at the processes takes.
 */
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/workqueue.h>

#include "mps_guard.h"

static struct mg_rates rates; /* under mg_spaces_lock */

static unsigned int isolated; /* likewise */
module_param(isolated, uint, 0444);
MODULE_PARM_DESC(isolated, "clients whose faults were sunk, since load (read only)");

/* One client is counted once, at its first fault. */
static bool rate_allows(const struct mg_owners *owners)
{
	const struct mg_owner *client = mg_owners_client(owners);
	struct mg_limits limits = mg_limits_now();
	unsigned long flags;
	bool allowed;

	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	allowed = mg_rate_take(&rates, from_kuid(&init_user_ns, client->uid), limits.rate,
			       ktime_get_ns());
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
	return allowed;
}

/* May this client's faults be sunk at all? Found out away from the lock. */
static enum mg_why may_sink(const struct mg_owners *owners, bool watching, u32 windows)
{
	if (!owners->file)
		return MG_WHY_NO_OWNER;
	if (!mg_owners_in_scope(owners))
		return MG_WHY_SCOPE;
	if (watching)
		return MG_WHY_OBSERVE;
	if (!windows && !rate_allows(owners))
		return MG_WHY_RATE;
	return MG_WHY_HELD;
}

/*
 * The lock is held. The end of one run of the worker, told once: sunk, or why not. What was given
 * up meanwhile has been told by the hook. `found` are the owners if this run looked for them.
 */
static void settle(struct mg_entry *entry, struct mg_owners *found, enum mg_why why)
{
	bool sunk = why == MG_WHY_HELD && entry->policy.state == MG_IDLE;

	if (found)
		swap(entry->owners, *found); /* the record names them */
	if (sunk && !entry->sunk_ns) {
		entry->sunk_ns = ktime_get_ns();
		isolated++;
		mg_space_report(entry, MPS_GUARD_SUNK, why);
		mg_end_begin(entry);
	} else if (why != MG_WHY_HELD) {
		mg_space_passed(entry, why);
	}
	if (found && !entry->sunk_ns) /* nobody is to be ended: keep nothing */
		swap(entry->owners, *found);
	entry->working = false;
	if (entry->gone && !entry->owners.file)
		entry->va_space = NULL;
}

/* One more window. False when there is no other to make; the entry is settled then. */
static bool one_window(struct mg_entry *entry, struct mg_owners *found, enum mg_why why)
{
	struct mg_limits limits = mg_limits_now();
	struct mg_window window = { 0 };
	enum mg_next next = MG_NEXT_LOST;
	unsigned long flags;
	struct file *file;
	u64 va = 0, bytes;

	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	if (why == MG_WHY_HELD)
		next = mg_next(&limits, &entry->policy, &va, &why);
	else
		mg_settle(&entry->policy, window, ktime_get_ns());
	file = found ? found->file : entry->owners.file;
	bytes = mg_first_window(&limits, &entry->policy, va);
	if (next != MG_NEXT_SINK)
		settle(entry, found, why);
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
	if (next != MG_NEXT_SINK)
		return false;

	why = mg_sink(entry, file, va, bytes, &window);
	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	mg_settle(&entry->policy, window, ktime_get_ns());
	if (why != MG_WHY_HELD)
		settle(entry, found, why);
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
	return why == MG_WHY_HELD;
}

/*
 * Find who holds it, map something under every address that is wanted, settle. The owners are
 * looked up once, and become visible to others only with the result. A pointer that was freed and
 * given to another address space meanwhile is noticed by `gone`, which was set before it could be
 * given away.
 */
static void sink_work(struct work_struct *work)
{
	struct mg_entry *entry = container_of(work, struct mg_entry, sink);
	struct mg_owners owners = { 0 };
	bool first, watching;
	unsigned long flags;
	enum mg_why why;
	u32 windows;

	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	first = !entry->owners.file;
	watching = entry->policy.state == MG_GIVEN_UP;
	windows = entry->policy.windows;
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);

	if (first)
		mg_owners_find(entry->va_space, &owners);
	if (READ_ONCE(entry->gone))
		mg_owners_put(&owners);
	why = may_sink(first ? &owners : &entry->owners, watching, windows);
	while (one_window(entry, first ? &owners : NULL, why))
		;
	mg_owners_put(&owners);
}

int mg_worker_init(void)
{
	int i;

	mg_queue = alloc_workqueue("mps_guard", WQ_UNBOUND | WQ_HIGHPRI, MG_ENTRIES);
	if (!mg_queue)
		return -ENOMEM;
	for (i = 0; i < MG_ENTRIES; i++) {
		INIT_WORK(&mg_entries[i].sink, sink_work);
		INIT_DELAYED_WORK(&mg_entries[i].end, mg_end_work);
	}
	return 0;
}

/* The hooks are off. Finish what runs, end who is doomed, let every file go. */
void mg_worker_stop(void)
{
	int i;

	for (i = 0; i < MG_ENTRIES; i++) {
		cancel_work_sync(&mg_entries[i].sink);
		cancel_delayed_work_sync(&mg_entries[i].end);
		if (mg_entries[i].owners.file)
			mg_end_at_unload(&mg_entries[i]);
		mg_owners_put(&mg_entries[i].owners);
	}
	destroy_workqueue(mg_queue);
}
