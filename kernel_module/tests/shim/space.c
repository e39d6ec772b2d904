// SPDX-License-Identifier: GPL-2.0-only
/*
 * Address spaces: ranges that never overlap, and in the external ones mappings, which a new mapping
 * replaces where they lie under it: they are split there, which works only between their pages.
 *
 * An address space ends as the driver's does: the bottom half serves what was fetched before, then
 * the ranges and GPUs go under the lock, then it waits for the bottom half, then the memory is
 * freed. `late` makes it fault once more meanwhile; `reuse` gives a new address space the memory
 * of one that has ended.
 */
#include <linux/hash.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "space.h"

static bool reuse;
module_param(reuse, bool, 0600);
static bool late;
module_param(late, bool, 0600);

atomic64_t shim_alive;
static struct va_space *spares[4];

static bool collides(struct va_space *space, u64 base, u64 length)
{
	struct area *range;

	list_for_each_entry(range, &space->ranges, link)
		if (base < range->base + range->length && range->base < base + length)
			return true;
	return false;
}

u32 space_add(struct va_space *space, u64 base, u64 length, bool external)
{
	struct area *range;
	u32 status = IN_USE;
	int gpu;

	down_write(&space->lock);
	if (!collides(space, base, length)) {
		range = kzalloc(sizeof(*range), GFP_KERNEL);
		status = range ? OK : NO_MEMORY;
	}
	if (status == OK) {
		range->base = base;
		range->length = length;
		range->external = external;
		for (gpu = 0; gpu < SHIM_GPUS; gpu++)
			INIT_LIST_HEAD(&range->mappings[gpu]);
		list_add(&range->link, &space->ranges);
	}
	up_write(&space->lock);
	return status;
}

static bool between_pages(const struct mapping *old, u64 at)
{
	return at <= old->base || at >= old->base + old->length || IS_ALIGNED(at, old->page);
}

/* A piece of a mapping stays: what it maps moves along with what it is found by. */
static u32 keep(struct mapping *old, u64 base, u64 end)
{
	struct mapping *piece;

	if (base >= end)
		return OK;
	piece = kmemdup(old, sizeof(*old), GFP_KERNEL);
	if (!piece)
		return NO_MEMORY;
	piece->base = base;
	piece->length = end - base;
	piece->pte.base += base - old->base;
	piece->pte.length = end - base;
	list_add_tail(&piece->link, &old->link);
	return OK;
}

static u32 replace(struct list_head *mappings, u64 base, u64 end)
{
	struct mapping *old, *next;
	u32 status = OK;

	list_for_each_entry(old, mappings, link)
		if (!between_pages(old, base) || !between_pages(old, end))
			return INVALID_ADDRESS;
	list_for_each_entry_safe(old, next, mappings, link) {
		if (old->base >= end || base >= old->base + old->length)
			continue;
		status = keep(old, old->base, base);
		if (status == OK)
			status = keep(old, end, old->base + old->length);
		if (status != OK)
			return status;
		list_del(&old->link);
		kfree(old);
	}
	return OK;
}

u32 space_map(struct va_space *space, int gpu, const struct mapping *wanted)
{
	u64 end = wanted->base + wanted->length;
	u32 status = INVALID_ADDRESS;
	struct mapping *made;
	struct area *range;

	made = kmemdup(wanted, sizeof(*wanted), GFP_KERNEL);
	if (!made)
		return NO_MEMORY;
	down_read(&space->lock);
	mutex_lock(&space->map_lock);
	list_for_each_entry(range, &space->ranges, link) {
		if (!range->external || wanted->base < range->base ||
		    end > range->base + range->length)
			continue;
		status = replace(&range->mappings[gpu], wanted->base, end);
		if (status == OK)
			list_add(&made->link, &range->mappings[gpu]);
		break;
	}
	mutex_unlock(&space->map_lock);
	up_read(&space->lock);
	if (status != OK)
		kfree(made);
	return status;
}

const struct mapping *space_sparse_at(struct va_space *space, u64 va, u32 gpu)
{
	struct mapping *mapping, *found = NULL;
	struct area *range;

	mutex_lock(&space->map_lock);
	list_for_each_entry(range, &space->ranges, link)
		list_for_each_entry(mapping, &range->mappings[gpu], link)
			if (mapping->sparse && va - mapping->pte.base < mapping->pte.length)
				found = mapping;
	mutex_unlock(&space->map_lock);
	return found;
}

void space_stats(struct va_space *space, struct shim_stats *answer)
{
	struct mapping *mapping;
	struct area *range;

	answer->address = hash_long((unsigned long)space, 63);
	answer->lowest_sparse = ~0ull;
	down_read(&space->lock);
	mutex_lock(&space->map_lock);
	list_for_each_entry(range, &space->ranges, link)
		list_for_each_entry(mapping, &range->mappings[0], link) {
			if (!mapping->sparse)
				continue;
			answer->sparse_bytes += mapping->pte.length;
			answer->lowest_sparse = min(answer->lowest_sparse, mapping->pte.base);
		}
	mutex_unlock(&space->map_lock);
	up_read(&space->lock);
}

/* Each address space passes here once, before it can fault. */
noinline u32 uvm_va_space_mm_register(struct va_space *space)
{
	atomic64_inc(&shim_alive);
	return OK;
}

static struct va_space *take_spare(void)
{
	struct va_space *spare = NULL;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(spares) && !spare; i++)
		spare = xchg(&spares[i], NULL);
	return spare;
}

static bool keep_spare(struct va_space *space)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(spares); i++)
		if (!cmpxchg(&spares[i], NULL, space))
			return true;
	return false;
}

struct va_space *space_create(void)
{
	struct va_space *space = take_spare();

	if (!space)
		space = kmalloc(sizeof(*space), GFP_KERNEL);
	if (!space)
		return NULL;
	memset(space, 0, sizeof(*space));
	space->has_gpu[0] = true;
	init_rwsem(&space->lock);
	init_rwsem(&space->tools_lock);
	mutex_init(&space->map_lock);
	INIT_LIST_HEAD(&space->ranges);
	uvm_va_space_mm_register(space);
	return space;
}

static void drop(struct area *range)
{
	struct mapping *mapping, *next;
	int gpu;

	for (gpu = 0; gpu < SHIM_GPUS; gpu++)
		list_for_each_entry_safe(mapping, next, &range->mappings[gpu], link)
			kfree(mapping);
	kfree(range);
}

noinline void uvm_va_space_destroy(struct va_space *space)
{
	struct bottom_half *half = late ? kzalloc(sizeof(*half), GFP_KERNEL) : NULL;
	struct area *range, *next;

	if (half) {
		half->space = space;
		half->fault = (struct shim_fault){ .va = SHIM_LATE, .reason = 1 };
		if (service_begin(half) == 0)
			wait_for_completion(&half->began);
		else
			complete(&half->done);
	}
	down_write(&space->lock);
	list_for_each_entry_safe(range, next, &space->ranges, link)
		drop(range);
	INIT_LIST_HEAD(&space->ranges);
	space->dead = true;
	up_write(&space->lock);
	if (half)
		wait_for_completion(&half->done);
	kfree(half);
	if (!reuse || !keep_spare(space))
		kfree(space);
	atomic64_dec(&shim_alive);
}

void space_exit(void)
{
	struct va_space *spare;

	while ((spare = take_spare()))
		kfree(spare);
}
