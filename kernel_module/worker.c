// SPDX-License-Identifier: GPL-2.0-only
/*
 * The worker that takes one faulting address space from held to sunk: who holds it, may that user
 * have another incident, a mapping under the address, the result.
 *
 * The rate is a user's own, so it is asked for here and not in the hook: only here is known whose
 * fault it is. Until then the fault is held, for as long as the look at the processes takes.
 */
#include <linux/ktime.h>
#include <linux/workqueue.h>

#include "mps_guard.h"

static struct mg_rates rates; /* under mg_spaces_lock */

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

/* What the worker found out about a fault, away from the lock. */
static enum mg_why sink(const struct mg_entry *entry, const struct mg_owners *owners, bool watching,
			u32 windows, struct mg_window *window)
{
	if (!owners->file)
		return MG_WHY_NO_OWNER;
	if (!mg_owners_in_scope(owners))
		return MG_WHY_SCOPE;
	if (watching)
		return MG_WHY_OBSERVE;
	if (!windows && !rate_allows(owners))
		return MG_WHY_RATE;
	return mg_sink(owners->file, entry->va, windows, window) ? MG_WHY_HELD : MG_WHY_NO_ROOM;
}

/*
 * Find who holds it, map something under the address, settle. The owners are looked up once, and
 * become visible to others only with the result. A pointer that was freed and given to another
 * address space meanwhile is noticed by `gone`, which was set before it could be given away.
 */
static void sink_work(struct work_struct *work)
{
	struct mg_entry *entry = container_of(work, struct mg_entry, sink);
	struct mg_window window = { 0 };
	struct mg_owners found = { 0 };
	bool first, watching, sunk;
	unsigned long flags;
	enum mg_why why;
	u32 windows;

	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	first = !entry->owners.file;
	watching = entry->policy.state == MG_GIVEN_UP;
	windows = entry->policy.windows;
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);

	if (first)
		mg_owners_find(entry->va_space, &found);
	if (READ_ONCE(entry->gone))
		mg_owners_put(&found);
	why = sink(entry, first ? &found : &entry->owners, watching, windows, &window);

	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	if (first)
		swap(entry->owners, found);
	mg_settle(&entry->policy, why == MG_WHY_HELD, window, ktime_get_ns());
	sunk = why == MG_WHY_HELD && entry->policy.state == MG_IDLE;
	if (why == MG_WHY_HELD && !sunk)
		why = MG_WHY_DEADLINE;
	if (sunk && !entry->sunk_ns)
		entry->sunk_ns = ktime_get_ns();
	mg_space_report(entry, sunk ? MPS_GUARD_SUNK : MPS_GUARD_PASSED, why);
	if (first && !sunk) /* nobody is to be ended: keep nothing */
		swap(entry->owners, found);
	entry->working = false;
	if (entry->gone && !entry->owners.file)
		entry->va_space = NULL;
	else if (first && sunk)
		mg_end_begin(entry);
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
	mg_owners_put(&found);
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
