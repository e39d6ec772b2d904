// SPDX-License-Identifier: GPL-2.0-only
/*
 * A stand-in for the driver: a module named nvidia_uvm with functions of the same names and
 * argument order, none of its code.
 *
 * An address space is a list of ranges. A fault runs on a kernel thread as the driver's bottom half
 * does: unserved, record, cancel; when the cancel was not emitted the access repeats. A cancel that
 * is emitted is counted: on a GPU it would end every client. -DSHIM_NO_CANCEL and -DSHIM_NO_SPARSE
 * leave an anchor out, to see the guard refuse. `slow_ms` delays the making of ranges,
 * `slow_map_ms` that of mappings; `reuse` gives a new address space the memory of the last one that
 * was freed.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "shim.h"

#ifdef SHIM_NO_CANCEL
#define uvm_hal_volta_cancel_faults_va shim_cancel_of_another_name
#endif
#ifdef SHIM_NO_SPARSE
#define uvm_api_map_external_sparse shim_sparse_of_another_name
#endif

#define TAG 2ul
#define REPLAYS 20000
#define OK 0x00u
#define INVALID_ADDRESS 0x1eu
#define INVALID_DEVICE 0x26u
#define NO_MEMORY 0x51u
#define IN_USE 0x68u

static unsigned int slow_ms;
module_param(slow_ms, uint, 0600);

static unsigned int slow_map_ms;
module_param(slow_map_ms, uint, 0600);
static bool reuse;
module_param(reuse, bool, 0600);

static const u8 gpu_uuids[SHIM_GPUS][16] = {
	{ 0x5a, 0x5a, 0x5a, 0x5a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 },
	{ 0x5b, 0x5a, 0x5a, 0x5a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 },
};
static atomic64_t cancels, records, alive;

struct area {
	struct list_head link;
	u64 base, length;
	bool external;
	struct sparse {
		u64 base, length;
	} sparse[SHIM_GPUS];
};

struct va_space {
	struct mutex lock;
	struct list_head ranges;
	bool has_gpu[SHIM_GPUS];
};

static struct va_space *spare;

struct fault_entry {
	u64 address;
	struct va_space *va_space;
	bool cancelled;
};

struct pdb {
	u64 address;
	u64 aperture;
};

struct create_params {
	u64 base, length;
	u32 status;
};

struct sparse_params {
	u64 base, length;
	u8 gpu[16];
	u32 status;
};

static struct va_space *space_of(struct file *file)
{
	return (struct va_space *)((unsigned long)file->private_data & ~7ul);
}

static bool collides(struct va_space *space, u64 base, u64 length)
{
	struct area *range;

	list_for_each_entry(range, &space->ranges, link)
		if (base < range->base + range->length && range->base < base + length)
			return true;
	return false;
}

static u32 add(struct va_space *space, u64 base, u64 length, bool external)
{
	struct area *range;
	u32 status = IN_USE;

	mutex_lock(&space->lock);
	if (!collides(space, base, length)) {
		range = kzalloc(sizeof(*range), GFP_KERNEL);
		status = range ? OK : NO_MEMORY;
	}
	if (status == OK) {
		range->base = base;
		range->length = length;
		range->external = external;
		list_add(&range->link, &space->ranges);
	}
	mutex_unlock(&space->lock);
	return status;
}

u32 uvm_api_create_external_range(struct create_params *params, struct file *file);
noinline u32 uvm_api_create_external_range(struct create_params *params, struct file *file)
{
	msleep(slow_ms);
	if (params->base == 0 || !IS_ALIGNED(params->base, 4096) || params->length == 0)
		return INVALID_ADDRESS;
	return add(space_of(file), params->base, params->length, true);
}

u32 uvm_page_table_range_vec_init(void *tree, u64 start, u64 size, u32 page_size, u32 flags,
				  struct sparse *sparse);
noinline u32 uvm_page_table_range_vec_init(void *tree, u64 start, u64 size, u32 page_size,
					   u32 flags, struct sparse *sparse)
{
	sparse->base = start;
	sparse->length = size;
	return OK;
}

static int gpu_of(const u8 *uuid)
{
	int gpu;

	for (gpu = 0; gpu < SHIM_GPUS; gpu++)
		if (!memcmp(uuid, gpu_uuids[gpu], 16))
			return gpu;
	return -1;
}

u32 uvm_api_map_external_sparse(struct sparse_params *params, struct file *file);
noinline u32 uvm_api_map_external_sparse(struct sparse_params *params, struct file *file)
{
	struct va_space *space = space_of(file);
	u64 end = params->base + params->length;
	u32 status = INVALID_ADDRESS;
	int gpu = gpu_of(params->gpu);
	struct area *range;

	if (gpu < 0 || !space->has_gpu[gpu])
		return INVALID_DEVICE;
	msleep(slow_map_ms);
	mutex_lock(&space->lock);
	list_for_each_entry(range, &space->ranges, link) {
		if (!range->external || params->base < range->base ||
		    end > range->base + range->length)
			continue;
		status = uvm_page_table_range_vec_init(NULL, params->base, params->length, 65536, 0,
						       &range->sparse[gpu]);
	}
	mutex_unlock(&space->lock);
	return status;
}

void uvm_tools_record_gpu_fatal_fault(u32 gpu, struct va_space *space,
				      const struct fault_entry *entry, u32 reason);
noinline void uvm_tools_record_gpu_fatal_fault(u32 gpu, struct va_space *space,
					       const struct fault_entry *entry, u32 reason)
{
	atomic64_inc(&records);
}

void uvm_hal_volta_cancel_faults_va(void *push, struct pdb pdb, struct fault_entry *entry,
				    u32 mode);
noinline void uvm_hal_volta_cancel_faults_va(void *push, struct pdb pdb, struct fault_entry *entry,
					     u32 mode)
{
	atomic64_inc(&cancels);
	entry->cancelled = true;
}

void uvm_va_space_destroy(struct va_space *space);
noinline void uvm_va_space_destroy(struct va_space *space)
{
	struct area *range, *next;

	list_for_each_entry_safe(range, next, &space->ranges, link)
		kfree(range);
	if (reuse)
		space = xchg(&spare, space);
	kfree(space);
	atomic64_dec(&alive);
}

static bool served(struct va_space *space, u64 va, u32 gpu)
{
	struct area *range;
	bool found = false;

	mutex_lock(&space->lock);
	list_for_each_entry(range, &space->ranges, link)
		found = found || va - range->sparse[gpu].base < range->sparse[gpu].length;
	mutex_unlock(&space->lock);
	return found;
}

struct bottom_half {
	struct va_space *space;
	struct shim_fault fault;
	struct completion done;
};

static int service(void *data)
{
	struct bottom_half *half = data;
	struct shim_fault *fault = &half->fault;
	struct fault_entry entry = { .address = fault->va, .va_space = half->space };

	while (!entry.cancelled && fault->replays < REPLAYS) {
		fault->served = served(half->space, fault->va, fault->gpu);
		if (fault->served)
			break;
		uvm_tools_record_gpu_fatal_fault(fault->gpu + 1, half->space, &entry,
						 fault->reason);
		if (fault->copy) { /* the driver ends the channel by another way */
			entry.cancelled = true;
			break;
		}
		uvm_hal_volta_cancel_faults_va(half, (struct pdb){ 1, 1 }, &entry, 0);
		fault->replays++;
		usleep_range(50, 150);
	}
	fault->cancels = entry.cancelled;
	complete(&half->done);
	return 0;
}

static long fault(struct file *file, struct shim_fault __user *user)
{
	struct bottom_half half = { .space = space_of(file) };
	struct task_struct *thread;

	if (copy_from_user(&half.fault, user, sizeof(half.fault)))
		return -EFAULT;
	if (half.fault.gpu >= SHIM_GPUS)
		return -EINVAL;
	init_completion(&half.done);
	half.fault.replays = half.fault.cancels = half.fault.served = 0;
	thread = kthread_run(service, &half, "UVM GPU1 BH");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	wait_for_completion(&half.done);
	return copy_to_user(user, &half.fault, sizeof(half.fault)) ? -EFAULT : 0;
}

static long stats(struct file *file, struct shim_stats __user *user)
{
	struct va_space *space = space_of(file);
	struct shim_stats answer = { .cancels = atomic64_read(&cancels),
				     .records = atomic64_read(&records),
				     .alive = atomic64_read(&alive),
				     .lowest_sparse = ~0ull,
				     .address = hash_long((unsigned long)space, 63) };
	struct area *range;

	mutex_lock(&space->lock);
	list_for_each_entry(range, &space->ranges, link) {
		answer.sparse_bytes += range->sparse[0].length;
		if (range->sparse[0].length)
			answer.lowest_sparse = min(answer.lowest_sparse, range->sparse[0].base);
	}
	mutex_unlock(&space->lock);
	return copy_to_user(user, &answer, sizeof(answer)) ? -EFAULT : 0;
}

static long shim_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct shim_range range;

	switch (command) {
	case SHIM_FAULT:
		return fault(file, (void __user *)argument);
	case SHIM_STATS:
		return stats(file, (void __user *)argument);
	case SHIM_RANGE:
		if (copy_from_user(&range, (void __user *)argument, sizeof(range)))
			return -EFAULT;
		return add(space_of(file), range.base, range.length, false) == OK ? 0 : -EEXIST;
	case SHIM_REGISTER:
		if (argument >= SHIM_GPUS)
			return -EINVAL;
		space_of(file)->has_gpu[argument] = true;
		return 0;
	}
	return -ENOTTY;
}

static int shim_open(struct inode *inode, struct file *file)
{
	struct va_space *space = xchg(&spare, NULL);

	if (!space)
		space = kmalloc(sizeof(*space), GFP_KERNEL);
	if (!space)
		return -ENOMEM;
	memset(space, 0, sizeof(*space));
	space->has_gpu[0] = true;
	mutex_init(&space->lock);
	INIT_LIST_HEAD(&space->ranges);
	file->private_data = (void *)((unsigned long)space | TAG);
	atomic64_inc(&alive);
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
	kfree(spare);
}

module_init(shim_init);
module_exit(shim_exit);
MODULE_LICENSE("GPL v2");
MODULE_DESCRIPTION("Test stand-in for the driver");
