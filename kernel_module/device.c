// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/mps_guard: what happened, to root; words of the node agent, from root. uapi/mps_guard.h is
 * the specification.
 */
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "mg_compat.h"
#include "mps_guard.h"

#define MG_LINE 80

static int guard_open(struct inode *inode, struct file *file)
{
	struct mg_reader *reader = kzalloc(sizeof(*reader), GFP_KERNEL);

	if (!reader)
		return -ENOMEM;
	mg_reader_begin(reader);
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
	struct mg_reader *reader = file->private_data;
	struct mps_guard_event event;
	ssize_t done = 0;

	if (size < sizeof(event))
		return -EINVAL;
	while (size - (size_t)done >= sizeof(event)) {
		if (!mg_reader_next(reader, &event)) {
			if (done)
				break;
			if (file->f_flags & O_NONBLOCK)
				return -EAGAIN;
			if (wait_event_interruptible(mg_readers, mg_reader_has(reader)))
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
	poll_wait(file, &mg_readers, table);
	return EPOLLOUT | EPOLLWRNORM |
	       (mg_reader_has(file->private_data) ? EPOLLIN | EPOLLRDNORM : 0);
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

int mg_device_init(void)
{
	return misc_register(&guard_device);
}

void mg_device_exit(void)
{
	misc_deregister(&guard_device);
}
