// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/mps_guard: what happened, to root; words of the node agent, from root. uapi/mps_guard.h is
 * the specification.
 *
 * One ring for all readers, each with a place of its own. Records are made in atomic context, so
 * readers are woken through irq_work.
 */
#include <linux/irq_work.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "mps_guard.h"

#define CREATE_TRACE_POINTS
#include "mg_trace.h"

#define MG_LINE 80

static DEFINE_RAW_SPINLOCK(ring_lock);
static DECLARE_WAIT_QUEUE_HEAD(readers);
static struct mps_guard_event ring[MPS_GUARD_RING];
static u64 written;

struct reader {
	u64 next;
	u64 dropped;
};

static void wake_readers(struct irq_work *work)
{
	wake_up_interruptible(&readers);
}

static DEFINE_IRQ_WORK(wake, wake_readers);

void mg_event(struct mps_guard_event *event)
{
	unsigned long flags;

	BUILD_BUG_ON(sizeof(*event) != MPS_GUARD_EVENT_SIZE);
	event->version = MPS_GUARD_VERSION;
	event->size = sizeof(*event);
	event->time_ns = ktime_get_ns();
	raw_spin_lock_irqsave(&ring_lock, flags);
	event->sequence = ++written;
	ring[written % MPS_GUARD_RING] = *event;
	raw_spin_unlock_irqrestore(&ring_lock, flags);
	trace_mps_guard(event);
	irq_work_queue(&wake);
}

static bool next_event(struct reader *reader, struct mps_guard_event *event)
{
	unsigned long flags;
	bool found;

	raw_spin_lock_irqsave(&ring_lock, flags);
	if (reader->next + MPS_GUARD_RING <= written) {
		u64 oldest = written - MPS_GUARD_RING + 1;

		reader->dropped += oldest - reader->next;
		reader->next = oldest;
	}
	found = reader->next <= written;
	if (found) {
		*event = ring[reader->next++ % MPS_GUARD_RING];
		event->dropped = reader->dropped;
	}
	raw_spin_unlock_irqrestore(&ring_lock, flags);
	return found;
}

static bool has_event(const struct reader *reader)
{
	unsigned long flags;
	bool has;

	raw_spin_lock_irqsave(&ring_lock, flags);
	has = reader->next <= written;
	raw_spin_unlock_irqrestore(&ring_lock, flags);
	return has;
}

static int guard_open(struct inode *inode, struct file *file)
{
	struct reader *reader = kzalloc(sizeof(*reader), GFP_KERNEL);
	unsigned long flags;

	if (!reader)
		return -ENOMEM;
	raw_spin_lock_irqsave(&ring_lock, flags);
	reader->next = written < MPS_GUARD_RING ? 1 : written - MPS_GUARD_RING + 1;
	raw_spin_unlock_irqrestore(&ring_lock, flags);
	file->private_data = reader;
	return 0;
}

static int guard_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static ssize_t guard_read(struct file *file, char __user *buffer, size_t size, loff_t *offset)
{
	struct reader *reader = file->private_data;
	struct mps_guard_event event;
	ssize_t done = 0;

	if (size < sizeof(event))
		return -EINVAL;
	while (size - (size_t)done >= sizeof(event)) {
		if (!next_event(reader, &event)) {
			if (done)
				break;
			if (file->f_flags & O_NONBLOCK)
				return -EAGAIN;
			if (wait_event_interruptible(readers, has_event(reader)))
				return -ERESTARTSYS;
			continue; /* another thread of the same file may have been quicker */
		}
		if (copy_to_user(buffer + done, &event, sizeof(event)))
			return done ? done : -EFAULT;
		done += sizeof(event);
	}
	return done;
}

static __poll_t guard_poll(struct file *file, poll_table *table)
{
	poll_wait(file, &readers, table);
	return EPOLLOUT | EPOLLWRNORM | (has_event(file->private_data) ? EPOLLIN | EPOLLRDNORM : 0);
}

static int obey(char *line)
{
	u8 uuid[16];
	u64 number;

	if (!strncmp(line, "ack ", 4) && !kstrtou64(line + 4, 10, &number))
		return mg_space_ack(number);
	if (!strncmp(line, "gpu ", 4) && strlen(line + 4) == 32 &&
	    !hex2bin(uuid, line + 4, sizeof(uuid)))
		return mg_sink_learn_gpu(uuid);
	if (!strncmp(line, "pid ", 4) && !kstrtou64(line + 4, 10, &number) && number <= INT_MAX)
		return mg_list_pid((int)number);
	return -EINVAL;
}

static ssize_t guard_write(struct file *file, const char __user *buffer, size_t size,
			   loff_t *offset)
{
	char line[MG_LINE];
	int error;

	if (size == 0 || size >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, buffer, size))
		return -EFAULT;
	line[size] = '\0';
	error = obey(strim(line));
	return error ? error : (ssize_t)size;
}

static const struct file_operations guard_operations = {
	.owner = THIS_MODULE,
	.open = guard_open,
	.release = guard_release,
	.read = guard_read,
	.write = guard_write,
	.poll = guard_poll,
	.llseek = noop_llseek,
};

static struct miscdevice guard_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mps_guard",
	.mode = 0600,
	.fops = &guard_operations,
};

int mg_events_init(void)
{
	return misc_register(&guard_device);
}

void mg_events_exit(void)
{
	misc_deregister(&guard_device);
	irq_work_sync(&wake);
}
