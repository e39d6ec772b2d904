// SPDX-License-Identifier: GPL-2.0-only
/*
 * The end of a client whose fault was sunk: it computes with zeros now, so it must not live on.
 *
 * The node agent ends it in the safe order (MPS first, then SIGKILL). Without its word within
 * kill_ms, or when the client still lives ack_ms later, the module kills every process that
 * holds the address space but the MPS server's. Then the address space stays (linger): work that
 * still runs on the GPU must have something to fault into, and each fault that is still held begins
 * the linger anew. Holding the client's file is what keeps it.
 */
#include <linux/jiffies.h>
#include <linux/sched.h>
#include <linux/ktime.h>

#include "mps_guard.h"

#define MG_WATCH_MS 50 /* how often a doomed client is looked at */
#define MG_WATCH_MAX_MS 60000 /* who lives longer keeps its address space itself */

static void again(struct mg_entry *entry, u64 ms)
{
	queue_delayed_work(mg_queue, &entry->end, msecs_to_jiffies((unsigned int)ms));
}

void mg_end_begin(struct mg_entry *entry)
{
	again(entry, min(mg_kill_ms() ? mg_kill_ms() : MG_WATCH_MS, 10000u));
}

static void kill_client(struct mg_entry *entry)
{
	unsigned long flags;

	if (!mg_owners_kill(entry->va_space))
		return;
	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	entry->killed = true;
	mg_space_report(entry, MPS_GUARD_KILLED, MG_WHY_HELD);
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
}

/*
 * From here on the entry only remembers that its address space is given up, until the driver frees
 * it.
 */
static void release(struct mg_entry *entry)
{
	struct mg_owners owners;
	unsigned long flags;

	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	mg_space_report(entry, MPS_GUARD_RELEASED, MG_WHY_HELD);
	owners = entry->owners;
	entry->owners = (struct mg_owners){ 0 };
	entry->policy.state = MG_GIVEN_UP;
	if (entry->gone)
		entry->va_space = NULL;
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
	mg_owners_put(&owners);
}

/* One look at a doomed client; returns when to look again, 0: never. */
static unsigned int look(struct mg_entry *entry, u64 now)
{
	/* A driver does not free what has an open file; should one do so, the pointer is void. */
	bool alive = !READ_ONCE(entry->gone) && mg_owners_alive(entry->va_space);
	unsigned int patience = READ_ONCE(entry->acked) ? mg_ack_ms() : mg_kill_ms();
	u64 age_ms = div_u64(now - entry->sunk_ns, NSEC_PER_MSEC);
	bool busy;

	if (alive && age_ms < MG_WATCH_MAX_MS) {
		if (mg_kill_ms() && !entry->killed && age_ms >= patience)
			kill_client(entry);
		entry->alone_ns = 0;
		return MG_WATCH_MS;
	}
	busy = READ_ONCE(entry->working) || entry->alone_holds != READ_ONCE(entry->policy.holds);
	if (!alive && (!entry->alone_ns || busy)) {
		entry->alone_ns = now;
		entry->alone_holds = READ_ONCE(entry->policy.holds);
		return max(mg_linger_ms(), 1u);
	}
	return busy ? MG_WATCH_MS : 0;
}

/* Nobody but this work gives the file back, so the address space stays while it runs. */
void mg_end_work(struct work_struct *work)
{
	struct mg_entry *entry = container_of(to_delayed_work(work), struct mg_entry, end);
	unsigned int ms = look(entry, ktime_get_ns());
	unsigned long flags;
	bool working;

	if (!ms) { /* no fault can be held from here on; one that is held already goes first */
		raw_spin_lock_irqsave(&mg_spaces_lock, flags);
		working = entry->working;
		if (!working)
			entry->policy.state = MG_GIVEN_UP;
		raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
		if (!working) {
			release(entry);
			return;
		}
		ms = MG_WATCH_MS;
	}
	again(entry, ms);
}

void mg_end_at_unload(struct mg_entry *entry)
{
	if (mg_kill_ms() && !entry->acked && !entry->killed && !entry->gone)
		kill_client(entry);
}
