// SPDX-License-Identifier: GPL-2.0-only
/*
 * The address spaces that have faulted, and the worker that takes one from held to sunk to ended.
 *
 * A fixed table under one raw lock, since the hooks look it up in atomic context. A full table, a rate limit, or an address space
 * that is being let go means PASS. After a fault is sunk the client's file stays held (linger) until its processes have gone and
 * linger_ms more: work that still runs on the GPU must have an address space to fault into.
 */
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timekeeping.h>

#include "mps_guard.h"

#define MG_SPACES 64
#define MG_WATCH_MS 100 /* how often a doomed client is looked at; nobody waits for the answer */
#define MG_WATCH_ROUNDS 600 /* a client that lives a minute after its verdict keeps its address space itself */

struct space {
	void *va_space; /* NULL: the entry is free */
	struct mg_space policy;
	u64 incident;
	u64 va;
	u32 gpu;
	u32 reason;
	bool acked;
	bool killed;
	bool gone; /* the driver has freed the address space: this entry only waits for its worker */
	unsigned int rounds;
	struct mg_owners owners;
	struct work_struct sink;
	struct delayed_work end;
};

static DEFINE_RAW_SPINLOCK(spaces_lock);
static struct space *spaces;
static struct workqueue_struct *queue;
static u64 incidents;
static u64 minute_began_ns;
static unsigned int minute_count;

static struct space *find(void *va_space)
{
	int i;

	for (i = 0; i < MG_SPACES; i++)
		if (spaces[i].va_space == va_space && !spaces[i].gone)
			return &spaces[i];
	return NULL;
}

static bool rate_allows(u64 now)
{
	if (now - minute_began_ns > 60ull * NSEC_PER_SEC) {
		minute_began_ns = now;
		minute_count = 0;
	}
	return minute_count++ < mg_rate_per_minute();
}

static struct space *claim(void *va_space, u64 now)
{
	struct space *space = find(va_space);
	int i;

	if (space || !rate_allows(now))
		return space;
	for (i = 0; i < MG_SPACES; i++) {
		space = &spaces[i];
		if (space->va_space)
			continue;
		space->va_space = va_space;
		space->policy = (struct mg_space){ 0 };
		space->incident = ++incidents;
		space->acked = space->killed = space->gone = false;
		space->rounds = 0;
		space->owners = (struct mg_owners){ 0 };
		return space;
	}
	return NULL;
}

static void report(const struct space *space, enum mps_guard_kind kind, enum mg_why why)
{
	const struct mg_owner *client = mg_owners_client(&space->owners);
	struct mps_guard_event event = {
		.incident = space->incident,
		.address = space->va,
		.kind = kind,
		.why = why,
		.gpu = space->gpu,
		.reason = space->reason,
		.windows = space->policy.windows,
		.holds = space->policy.holds,
		.holders = space->owners.count,
	};

	if (client) {
		event.pid = pid_nr(client->pid);
		event.uid = from_kuid(&init_user_ns, client->uid);
		event.start_ns = client->start_ns;
		event.cgroup = client->cgroup;
		memcpy(event.comm, client->comm, sizeof(event.comm));
	}
	mg_event(&event);
}

enum mg_verdict mg_space_fault(void *va_space, u32 gpu, u32 reason, u64 va)
{
	struct mg_limits limits = mg_limits_now();
	struct mg_answer answer;
	struct space *space;
	unsigned long flags;
	u64 now = ktime_get_ns();
	bool first_pass;

	if (!limits.enabled)
		return MG_PASS;
	raw_spin_lock_irqsave(&spaces_lock, flags);
	space = claim(va_space, now);
	if (!space) {
		struct mps_guard_event event = { .kind = MPS_GUARD_PASSED, .why = MG_WHY_NO_SLOT, .gpu = gpu, .reason = reason, .address = va };

		raw_spin_unlock_irqrestore(&spaces_lock, flags);
		mg_event(&event);
		return MG_PASS;
	}
	first_pass = space->policy.state != MG_GIVEN_UP;
	answer = mg_decide(&limits, &space->policy, reason, va, now);
	if (answer.start || (answer.verdict == MG_PASS && first_pass)) {
		space->va = va;
		space->gpu = gpu;
		space->reason = reason;
		report(space, answer.verdict == MG_HOLD ? MPS_GUARD_HELD : MPS_GUARD_PASSED, answer.why);
	}
	if (answer.start)
		queue_work(queue, &space->sink);
	raw_spin_unlock_irqrestore(&spaces_lock, flags);
	return answer.verdict;
}

/* The driver frees the address space (no holder is left): forget it, so that a new one at the same place starts afresh. */
void mg_space_gone(void *va_space)
{
	struct space *space;
	unsigned long flags;

	raw_spin_lock_irqsave(&spaces_lock, flags);
	space = find(va_space);
	if (space && space->policy.state == MG_SINKING)
		space->gone = true;
	else if (space && !space->owners.file)
		space->va_space = NULL;
	raw_spin_unlock_irqrestore(&spaces_lock, flags);
}

void mg_space_ack(u64 incident)
{
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&spaces_lock, flags);
	for (i = 0; i < MG_SPACES; i++)
		if (spaces[i].va_space && spaces[i].incident == incident)
			spaces[i].acked = true;
	raw_spin_unlock_irqrestore(&spaces_lock, flags);
}

/* Find who holds it, map something under the address, settle. */
static void sink_work(struct work_struct *work)
{
	struct space *space = container_of(work, struct space, sink);
	bool first = !space->owners.file;
	bool sunk = false;
	unsigned long flags;

	if (first)
		mg_owners_find(space->va_space, &space->owners);
	if (space->owners.file && mg_owners_in_scope(&space->owners))
		sunk = mg_sink(space->owners.file, space->va, space->policy.windows);
	raw_spin_lock_irqsave(&spaces_lock, flags);
	mg_settle(&space->policy, sunk);
	sunk = sunk && space->policy.state == MG_IDLE;
	report(space, sunk ? MPS_GUARD_SUNK : MPS_GUARD_PASSED, sunk ? MG_WHY_HELD : MG_WHY_GIVEN_UP);
	if (space->gone && !space->owners.file)
		space->va_space = NULL;
	raw_spin_unlock_irqrestore(&spaces_lock, flags);
	if (space->owners.file && first)
		queue_delayed_work(queue, &space->end, msecs_to_jiffies(sunk && mg_kill_ms() ? mg_kill_ms() : MG_WATCH_MS));
}

static bool any_alive(const struct mg_owners *owners)
{
	bool alive = false;
	unsigned int i;

	rcu_read_lock();
	for (i = 0; i < owners->count; i++)
		alive = alive || (!owners->owner[i].server && pid_task(owners->owner[i].pid, PIDTYPE_TGID));
	rcu_read_unlock();
	return alive;
}

static void end_client(struct space *space)
{
	unsigned int i;

	for (i = 0; i < space->owners.count; i++)
		if (!space->owners.owner[i].server)
			kill_pid(space->owners.owner[i].pid, SIGKILL, 1);
	space->killed = true;
	report(space, MPS_GUARD_KILLED, MG_WHY_HELD);
}

static void release(struct space *space)
{
	struct mg_owners owners;
	unsigned long flags;

	raw_spin_lock_irqsave(&spaces_lock, flags);
	report(space, MPS_GUARD_RELEASED, MG_WHY_HELD);
	owners = space->owners;
	space->owners = (struct mg_owners){ 0 };
	space->va_space = NULL;
	raw_spin_unlock_irqrestore(&spaces_lock, flags);
	mg_owners_put(&owners);
}

/* From the verdict on: end the client if nobody else does, wait until it has gone, linger, let go. */
static void end_work(struct work_struct *work)
{
	struct space *space = container_of(to_delayed_work(work), struct space, end);
	bool doomed = space->policy.state != MG_GIVEN_UP || space->policy.windows;

	if (doomed && mg_kill_ms() && !space->acked && !space->killed && any_alive(&space->owners))
		end_client(space);
	if (!doomed || space->rounds > MG_WATCH_ROUNDS) {
		release(space);
	} else if (any_alive(&space->owners)) {
		space->rounds++;
		queue_delayed_work(queue, &space->end, msecs_to_jiffies(MG_WATCH_MS));
	} else {
		space->rounds = MG_WATCH_ROUNDS + 1;
		queue_delayed_work(queue, &space->end, msecs_to_jiffies(mg_linger_ms()));
	}
}

int mg_spaces_init(void)
{
	int i;

	queue = alloc_workqueue("mps_guard", WQ_UNBOUND | WQ_HIGHPRI, MG_SPACES);
	if (!queue)
		return -ENOMEM;
	spaces = kcalloc(MG_SPACES, sizeof(*spaces), GFP_KERNEL);
	if (!spaces) {
		destroy_workqueue(queue);
		return -ENOMEM;
	}
	for (i = 0; i < MG_SPACES; i++) {
		INIT_WORK(&spaces[i].sink, sink_work);
		INIT_DELAYED_WORK(&spaces[i].end, end_work);
	}
	return 0;
}

/* The hooks are off. Finish what runs, let every file go. */
void mg_spaces_exit(void)
{
	int i;

	for (i = 0; i < MG_SPACES; i++) {
		cancel_work_sync(&spaces[i].sink);
		cancel_delayed_work_sync(&spaces[i].end);
		mg_owners_put(&spaces[i].owners);
	}
	destroy_workqueue(queue);
	kfree(spaces);
}
