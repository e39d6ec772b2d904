// SPDX-License-Identifier: GPL-2.0-only
/*
 * The address spaces that have faulted, and the worker that takes one from held to sunk.
 *
 * A fixed table under one raw lock, since the hooks look it up in atomic context. A full table, a
 * rate limit, or an address space that is being let go means PASS.
 *
 * Whose entry is it? While `working` is set, the sink worker's; while `owners.file` is set, the
 * ending's (ending.c), which gives it back only when no worker has it. An entry with neither only
 * remembers that further faults of its address space pass; it is freed when the driver frees the
 * address space, or taken for another when the table is full.
 */
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/timekeeping.h>

#include "mps_guard.h"

#define MG_ENTRIES 64

DEFINE_RAW_SPINLOCK(mg_spaces_lock);
struct workqueue_struct *mg_queue;

static struct mg_entry entries[MG_ENTRIES];
static u64 incidents;
static u64 minute_began_ns;
static unsigned int minute_count;

static struct mg_entry *find(void *va_space)
{
	int i;

	for (i = 0; i < MG_ENTRIES; i++)
		if (entries[i].va_space == va_space && !entries[i].gone)
			return &entries[i];
	return NULL;
}

static bool evictable(const struct mg_entry *entry)
{
	return entry->policy.state == MG_GIVEN_UP && !entry->working && !entry->owners.file;
}

static struct mg_entry *claim(void *va_space)
{
	struct mg_entry *entry = NULL;
	int i;

	for (i = 0; i < MG_ENTRIES; i++) {
		if (!entries[i].va_space) {
			entry = &entries[i];
			break;
		}
		if (evictable(&entries[i]) && (!entry || entries[i].incident < entry->incident))
			entry = &entries[i];
	}
	if (!entry)
		return NULL;
	entry->va_space = va_space;
	entry->policy = (struct mg_space){ 0 };
	entry->incident = ++incidents;
	entry->gone = false;
	entry->acked = false;
	entry->killed = false;
	entry->sunk_ns = 0;
	entry->alone_ns = 0;
	entry->alone_holds = 0;
	return entry;
}

/*
 * One incident is counted once, at its first hold; the worker gives it back when it was nobody in
 * scope.
 */
static bool rate_allows(const struct mg_entry *entry, u64 now)
{
	if (entry->policy.windows)
		return true;
	if (now - minute_began_ns > 60ull * NSEC_PER_SEC) {
		minute_began_ns = now;
		minute_count = 0;
	}
	if (minute_count >= mg_rate_per_minute())
		return false;
	minute_count++;
	return true;
}

void mg_space_report(const struct mg_entry *entry, enum mps_guard_kind kind, enum mg_why why)
{
	const struct mg_owner *client = mg_owners_client(&entry->owners);
	struct mps_guard_event event = {
		.incident = entry->incident,
		.address = entry->va,
		.kind = kind,
		.why = why,
		.gpu = entry->gpu,
		.reason = entry->reason,
		.windows = entry->policy.windows,
		.holds = entry->policy.holds,
		.holders = entry->owners.holders,
	};

	lockdep_assert_held(&mg_spaces_lock);
	if (client) {
		event.pid = pid_nr(client->pid);
		event.uid = from_kuid(&init_user_ns, client->uid);
		event.start_ns = client->start_ns;
		event.cgroup = client->cgroup;
		memcpy(event.comm, client->comm, sizeof(event.comm));
	}
	mg_event(&event);
}

static void report_no_slot(u32 gpu, u32 reason, u64 va)
{
	struct mps_guard_event event = {
		.kind = MPS_GUARD_PASSED,
		.why = MG_WHY_NO_SLOT,
		.gpu = gpu,
		.reason = reason,
		.address = va,
	};

	mg_event(&event);
}

static enum mg_verdict judge(struct mg_entry *entry, u32 gpu, u32 reason, u64 va, u64 now)
{
	struct mg_limits limits = mg_limits_now();
	bool given_up = entry->policy.state == MG_GIVEN_UP;
	struct mg_answer answer = mg_decide(&limits, &entry->policy, reason, va, now);

	if (answer.start && answer.verdict == MG_HOLD && !rate_allows(entry, now))
		answer = mg_give_up(&entry->policy, MG_WHY_RATE);
	if (!answer.start && (answer.verdict == MG_HOLD || given_up))
		return answer.verdict;
	if (!entry->working) { /* the worker reads these */
		entry->va = va;
		entry->gpu = gpu;
		entry->reason = reason;
	}
	if (answer.verdict == MG_HOLD)
		mg_space_report(entry, MPS_GUARD_HELD, answer.why);
	else if (!answer.start)
		mg_space_report(entry, MPS_GUARD_PASSED, answer.why);
	if (answer.start) {
		entry->working = true;
		queue_work(mg_queue, &entry->sink);
	}
	return answer.verdict;
}

enum mg_verdict mg_space_fault(void *va_space, u32 gpu, u32 reason, u64 va)
{
	enum mg_verdict verdict = MG_PASS;
	struct mg_entry *entry;
	unsigned long flags;

	if (!mg_limits_now().enabled)
		return MG_PASS;
	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	entry = find(va_space);
	if (!entry)
		entry = claim(va_space);
	if (entry)
		verdict = judge(entry, gpu, reason, va, ktime_get_ns());
	else
		report_no_slot(gpu, reason, va);
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
	return verdict;
}

/*
 * The driver frees the address space: forget it, so that a new one at the same place starts afresh.
 */
void mg_space_gone(void *va_space)
{
	struct mg_entry *entry;
	unsigned long flags;

	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	entry = find(va_space);
	if (entry && (entry->working || entry->owners.file))
		entry->gone = true;
	else if (entry)
		entry->va_space = NULL;
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
}

int mg_space_ack(u64 incident)
{
	unsigned long flags;
	int error = -ENOENT;
	int i;

	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	for (i = 0; i < MG_ENTRIES; i++) {
		if (!entries[i].va_space || entries[i].incident != incident)
			continue;
		entries[i].acked = true;
		error = 0;
	}
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
	return error;
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
	if ((why == MG_WHY_SCOPE || why == MG_WHY_NO_OWNER) && !watching && minute_count)
		minute_count--;
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

int mg_spaces_init(void)
{
	int i;

	mg_queue = alloc_workqueue("mps_guard", WQ_UNBOUND | WQ_HIGHPRI, MG_ENTRIES);
	if (!mg_queue)
		return -ENOMEM;
	for (i = 0; i < MG_ENTRIES; i++) {
		INIT_WORK(&entries[i].sink, sink_work);
		INIT_DELAYED_WORK(&entries[i].end, mg_end_work);
	}
	return 0;
}

/* The hooks are off. Finish what runs, end who is doomed, let every file go. */
void mg_spaces_stop(void)
{
	int i;

	for (i = 0; i < MG_ENTRIES; i++) {
		cancel_work_sync(&entries[i].sink);
		cancel_delayed_work_sync(&entries[i].end);
		if (entries[i].owners.file)
			mg_end_at_unload(&entries[i]);
		mg_owners_put(&entries[i].owners);
	}
	destroy_workqueue(mg_queue);
}
