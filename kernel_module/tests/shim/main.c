// SPDX-License-Identifier: GPL-2.0-only
/*
 * A stand-in for the driver: a module named nvidia_uvm with functions of the same names and
 * argument order, none of its code. Where it behaves as the driver does, and how that was seen, is
 * in docs/explanation/isolation.md.
 */
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include "space.h"

static struct va_space *space_of(struct file *file)
{
	return (struct va_space *)((unsigned long)file->private_data & ~7ul);
}

static long fault(struct file *file, struct shim_fault __user *user)
{
	struct bottom_half half = { .space = space_of(file) };
	int error;

	if (copy_from_user(&half.fault, user, sizeof(half.fault)))
		return -EFAULT;
	if (half.fault.gpu >= SHIM_GPUS)
		return -EINVAL;
	error = service_begin(&half);
	if (error)
		return error;
	wait_for_completion(&half.done);
	return copy_to_user(user, &half.fault, sizeof(half.fault)) ? -EFAULT : 0;
}

static long touch(struct shim_touch __user *user)
{
	struct shim_touch touch;

	if (copy_from_user(&touch, user, sizeof(touch)))
		return -EFAULT;
	if (touch.gpu >= SHIM_GPUS)
		return -EINVAL;
	service_touch(&touch);
	return copy_to_user(user, &touch, sizeof(touch)) ? -EFAULT : 0;
}

static long stats(struct file *file, struct shim_stats __user *user)
{
	struct shim_stats answer = { .cancels = atomic64_read(&shim_cancels),
				     .records = atomic64_read(&shim_records),
				     .alive = atomic64_read(&shim_alive),
				     .bare_calls = atomic64_read(&shim_bare_calls) };

	space_stats(space_of(file), &answer);
	return copy_to_user(user, &answer, sizeof(answer)) ? -EFAULT : 0;
}

static long to_errno(u32 status)
{
	return status == OK ? 0 : status == IN_USE ? -EEXIST : -EINVAL;
}

/* What has to do with ranges goes the driver's own way in. */
static long ranges(struct file *file, unsigned int command, void __user *user)
{
	struct thread_context context;
	struct shim_range range;
	u32 status;

	if (copy_from_user(&range, user, sizeof(range)))
		return -EFAULT;
	if (!power_enter())
		return -EAGAIN;
	uvm_thread_context_add(&context);
	if (command == SHIM_RANGE)
		status = space_add(space_of(file), range.base, range.length, false);
	else if (command == SHIM_EXTERNAL)
		status = shim_create(space_of(file), &range);
	else
		status = shim_map(space_of(file), &range);
	uvm_thread_context_remove(&context);
	power_leave();
	return to_errno(status);
}

static long shim_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	void __user *user = (void __user *)argument;

	switch (command) {
	case SHIM_FAULT:
		return fault(file, user);
	case SHIM_TOUCH:
		return touch(user);
	case SHIM_STATS:
		return stats(file, user);
	case SHIM_RANGE:
	case SHIM_EXTERNAL:
	case SHIM_MAP:
		return ranges(file, command, user);
	case SHIM_REGISTER:
		if (argument >= SHIM_GPUS)
			return -EINVAL;
		space_of(file)->has_gpu[argument] = true;
		return 0;
	case SHIM_POWER:
		return to_errno(argument ? uvm_suspend_entry() : uvm_resume_entry());
	}
	return -ENOTTY;
}

static int shim_open(struct inode *inode, struct file *file)
{
	struct va_space *space = space_create();

	if (!space)
		return -ENOMEM;
	file->private_data = (void *)((unsigned long)space | TAG);
	return 0;
}

static int shim_release(struct inode *inode, struct file *file)
{
	uvm_va_space_destroy(space_of(file));
	return 0;
}

static const struct file_operations shim_operations = {
	.owner = THIS_MODULE,
	.open = shim_open,
	.release = shim_release,
	.unlocked_ioctl = shim_ioctl,
};

static struct miscdevice shim_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "shim_uvm",
	.mode = 0666,
	.fops = &shim_operations,
};

static int __init shim_init(void)
{
	return misc_register(&shim_device);
}

static void __exit shim_exit(void)
{
	misc_deregister(&shim_device);
	space_exit();
}

module_init(shim_init);
module_exit(shim_exit);
MODULE_LICENSE("GPL v2");
MODULE_DESCRIPTION("Test stand-in for the driver");
MODULE_VERSION("0.shim");
