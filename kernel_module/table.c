// SPDX-License-Identifier: GPL-2.0-only
/*
 * The address spaces that have faulted: what is known of each, and hold or pass for its faults.
 *
 * A fixed table under one raw lock, since the hooks look it up in atomic context. A full table or
 * an address space that is being let go means PASS.
 *
 * Whose entry is it? While `working` is set, the sink worker's (worker.c); while `owners.file` is
 * set, the ending's (ending.c), which gives it back only when no worker has it. An entry with
 * neither only remembers that further faults of its address space pass; it is freed when its
 * pointer begins to mean another address space, or taken for another when the table is full.
 *
 * An incident is told once: held, then sunk or passed; and passed after all when neighbours are hit
 * later. A storm of one client cannot fill the ring.
 */
#include <linux/moduleparam.h>
#include <linux/pid.h>
#include <linux/sysfs.h>
#include <linux/ktime.h>

#include "mps_guard.h"

DEFINE_RAW_SPINLOCK(mg_spaces_lock);
struct mg_entry mg_entries[MG_ENTRIES];
struct workqueue_struct *mg_queue;

static u64 incidents;

static struct mg_entry *find(void *va_space)
{
	int i;

	for (i = 0; i < MG_ENTRIES; i++)
		if (mg_entries[i].va_space == va_space && !mg_entries[i].gone)
			return &mg_entries[i];
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
		if (!mg_entries[i].va_space) {
			entry = &mg_entries[i];
			break;
		}
		if (evictable(&mg_entries[i]) &&
		    (!entry || mg_entries[i].incident < entry->incident))
			entry = &mg_entries[i];
	}
	if (!entry)
		return NULL;
	entry->va_space = va_space;
	entry->policy = (struct mg_space){ 0 };
	entry->incident = ++incidents;
	entry->gone = false;
	entry->told_held = false;
	entry->told_passed = false;
	entry->stand_in = 0;
	entry->acked = false;
	entry->killed = false;
	entry->sunk_ns = 0;
	entry->alone_ns = 0;
	entry->alone_holds = 0;
	return entry;
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

void mg_space_passed(struct mg_entry *entry, enum mg_why why)
{
	if (!entry->told_passed)
		mg_space_report(entry, MPS_GUARD_PASSED, why);
	entry->told_passed = true;
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
	struct mg_answer answer = mg_decide(&limits, &entry->policy, reason, gpu, va, now);

	if (answer.why == MG_WHY_OFF)
		return answer.verdict;
	if (!entry->told_held && !entry->told_passed) {
		entry->va = va;
		entry->gpu = gpu;
		entry->reason = reason;
	}
	if (answer.verdict == MG_HOLD && !entry->told_held) {
		entry->told_held = true;
		mg_space_report(entry, MPS_GUARD_HELD, answer.why);
	} else if (answer.verdict == MG_PASS && !answer.start) {
		mg_space_passed(entry, answer.why);
	}
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
 * Would a fault of it most likely be held, as one was before? Only to spare those who trace faults
 * a record for every replay: nothing else depends on it.
 */
bool mg_space_held(void *va_space)
{
	const struct mg_entry *entry;
	unsigned long flags;
	bool held;

	if (!mg_limits_now().enabled)
		return false;
	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	entry = find(va_space);
	held = entry && entry->told_held && entry->policy.state != MG_GIVEN_UP;
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
	return held;
}

/*
 * The pointer means another address space from now on, or will: what is known of it is forgotten,
 * so that a new one at the same place starts afresh. The driver serves faults while it tears an
 * address space down, so the beginning of the next one at this place is told as well as the end.
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
		if (!mg_entries[i].va_space || mg_entries[i].incident != incident)
			continue;
		mg_entries[i].acked = true;
		error = 0;
	}
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
	return error;
}

/*
 * The parameter `clients`: whose faults are held, or who were isolated and have an end to come to.
 * Records and this number change under one lock: who has read a client's last record sees it gone.
 */
static int show_clients(char *buffer, const struct kernel_param *param)
{
	unsigned int count = 0;
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&mg_spaces_lock, flags);
	for (i = 0; i < MG_ENTRIES; i++)
		count += mg_entries[i].va_space &&
			 (mg_entries[i].working || mg_entries[i].owners.file);
	raw_spin_unlock_irqrestore(&mg_spaces_lock, flags);
	return sysfs_emit(buffer, "%u\n", count);
}

static const struct kernel_param_ops clients_ops = { .get = show_clients };
module_param_cb(clients, &clients_ops, NULL, 0444);
MODULE_PARM_DESC(clients, "held or isolated now (read only)");
