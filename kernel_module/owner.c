// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whose address space is it? The driver's structure names no process, so at fault time, and only
 * then, every process's open files are looked through for the one whose private pointer is the
 * address space (its low bits are the driver's tag). Under MPS the client holds it and, presumably,
 * the server too: the server is told by its name and is never ended. A client that takes that name
 * is no client and gets the stock path; whoever else holds the file by then shares the client's
 * fate.
 */
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

#include "mps_guard.h"

#define MG_TAG_BITS 7ul
#define MG_LISTED 256

/* nvidia-cuda-mps-server (and -control), cut to a task's 15 characters */
static const char server_comm[] = "nvidia-cuda-mps";
static int listed[MG_LISTED];
static unsigned int listed_next;
static DEFINE_SPINLOCK(listed_lock);

/*
 * One walk over the processes; `visit` is called, under RCU and the task's lock, for each holder.
 */
struct walk {
	void *va_space;
	struct file *file; /* borrowed: the holder's lock keeps it */
	void (*visit)(struct walk *walk, struct task_struct *task);
	struct mg_owners *owners;
	unsigned int count;
};

static int match(const void *data, struct file *file, unsigned int fd)
{
	struct walk *walk = (struct walk *)data;

	if (((unsigned long)READ_ONCE(file->private_data) & ~MG_TAG_BITS) !=
	    (unsigned long)walk->va_space)
		return 0;
	if (!file->f_op || !mg_is_driver(file->f_op->owner))
		return 0;
	walk->file = file;
	if (walk->owners && !walk->owners->file)
		walk->owners->file = get_file(file);
	return 1;
}

static bool is_server(const struct task_struct *task)
{
	return !strncmp(task->comm, server_comm, sizeof(server_comm) - 1);
}

/*
 * Threads share their files, so one thread that has any speaks for its process; the first may have
 * ended.
 */
static void visit_process(struct walk *walk, struct task_struct *leader)
{
	struct task_struct *thread;
	bool asked = false;

	for_each_thread(leader, thread) {
		task_lock(thread);
		if (thread->files) {
			asked = true;
			walk->file = NULL;
			iterate_fd(thread->files, 0, match, walk);
			if (walk->file)
				walk->visit(walk, leader);
		}
		task_unlock(thread);
		if (asked)
			return;
	}
}

static void walk_processes(struct walk *walk)
{
	struct task_struct *leader;

	rcu_read_lock();
	for_each_process(leader)
		if (!data_race(leader->flags & PF_KTHREAD)) /* others change, this one stays */
			visit_process(walk, leader);
	rcu_read_unlock();
}

static void take(struct walk *walk, struct task_struct *task)
{
	struct mg_owners *owners = walk->owners;
	struct mg_owner *owner;

	owners->holders++;
	if (owners->count == MG_MAX_OWNERS)
		return;
	owner = &owners->owner[owners->count++];
	owner->pid = get_pid(task_tgid(task));
	owner->start_ns = task->start_boottime;
	owner->uid = task_uid(task);
	owner->cgroup = cgroup_id(task_dfl_cgroup(task));
	memcpy(owner->comm, task->comm, sizeof(owner->comm));
	owner->comm[sizeof(owner->comm) - 1] = '\0';
	owner->server = is_server(task);
}

void mg_owners_find(void *va_space, struct mg_owners *owners)
{
	struct walk walk = { .va_space = va_space, .visit = take, .owners = owners };

	walk_processes(&walk);
}

static void count_living(struct walk *walk, struct task_struct *task)
{
	walk->count += !is_server(task);
}

bool mg_owners_alive(void *va_space)
{
	struct walk walk = { .va_space = va_space, .visit = count_living };

	walk_processes(&walk);
	return walk.count > 0;
}

static void kill_holder(struct walk *walk, struct task_struct *task)
{
	if (is_server(task) || is_global_init(task))
		return;
	send_sig(SIGKILL, task, 1);
	walk->count++;
}

unsigned int mg_owners_kill(void *va_space)
{
	struct walk walk = { .va_space = va_space, .visit = kill_holder };

	walk_processes(&walk);
	return walk.count;
}

void mg_owners_put(struct mg_owners *owners)
{
	unsigned int i;

	for (i = 0; i < owners->count; i++)
		put_pid(owners->owner[i].pid);
	if (owners->file)
		fput(owners->file);
	*owners = (struct mg_owners){ 0 };
}

const struct mg_owner *mg_owners_client(const struct mg_owners *owners)
{
	unsigned int i;

	for (i = 0; i < owners->count; i++)
		if (!owners->owner[i].server)
			return &owners->owner[i];
	return NULL;
}

static bool is_listed(int tgid)
{
	bool found = false;
	int i;

	spin_lock(&listed_lock);
	for (i = 0; i < MG_LISTED; i++)
		found = found || listed[i] == tgid;
	spin_unlock(&listed_lock);
	return found;
}

bool mg_owners_in_scope(const struct mg_owners *owners)
{
	const struct mg_owner *client = mg_owners_client(owners);
	bool server = false;
	unsigned int i;

	if (!client)
		return false;
	for (i = 0; i < owners->count; i++)
		server = server || owners->owner[i].server;
	switch (mg_scope_now()) {
	case MG_SCOPE_MPS:
		return server;
	case MG_SCOPE_LISTED:
		return is_listed(pid_nr(client->pid));
	case MG_SCOPE_ALL:
		return true;
	}
	return false;
}

/* The newest MG_LISTED processes are remembered. */
int mg_list_pid(int tgid)
{
	if (tgid <= 1)
		return -EINVAL;
	spin_lock(&listed_lock);
	listed[listed_next++ % MG_LISTED] = tgid;
	spin_unlock(&listed_lock);
	return 0;
}
