// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whose address space is it? The driver's structure names no process, so at fault time, and only then, every process's open files
 * are looked through for the one whose private pointer is the address space (its low bits are the driver's tag). Under MPS the client
 * holds it and, presumably, the server too: the server is told by its name and is never ended.
 */
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

#include "mps_guard.h"

#define MG_TAG_BITS 7ul
#define MG_LISTED 256

static const char server_comm[] = "nvidia-cuda-mps"; /* nvidia-cuda-mps-server, cut to a task's 15 characters */
static int listed[MG_LISTED];
static unsigned int listed_next;
static DEFINE_SPINLOCK(listed_lock);

struct search {
	void *va_space;
	struct file *file;
};

static int match(const void *data, struct file *file, unsigned int fd)
{
	struct search *search = (struct search *)data;

	if (((unsigned long)READ_ONCE(file->private_data) & ~MG_TAG_BITS) != (unsigned long)search->va_space)
		return 0;
	if (!file->f_op || !file->f_op->owner || strcmp(module_name(file->f_op->owner), "nvidia_uvm"))
		return 0;
	search->file = get_file(file);
	return 1;
}

static void take(struct mg_owner *owner, struct task_struct *task)
{
	owner->pid = get_pid(task_tgid(task));
	owner->start_ns = task->start_boottime;
	owner->uid = task_uid(task);
	owner->cgroup = cgroup_id(task_dfl_cgroup(task));
	strscpy(owner->comm, task->comm, sizeof(owner->comm));
	owner->server = !strncmp(task->comm, server_comm, sizeof(owner->comm) - 1);
}

void mg_owners_find(void *va_space, struct mg_owners *owners)
{
	struct task_struct *task;

	rcu_read_lock();
	for_each_process(task) {
		struct search search = { .va_space = va_space };

		if (task->flags & PF_KTHREAD)
			continue;
		task_lock(task);
		if (task->files)
			iterate_fd(task->files, 0, match, &search);
		if (search.file && owners->count < MG_MAX_OWNERS)
			take(&owners->owner[owners->count++], task);
		task_unlock(task);
		if (search.file && !owners->file)
			owners->file = search.file;
		else if (search.file)
			fput(search.file);
	}
	rcu_read_unlock();
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
