// SPDX-License-Identifier: GPL-2.0-only
/*
 * What two public ioctls of the driver do, under its names. A range may begin at any 4 KiB but 0, a
 * sparse mapping at 64 KiB. `slow_ms` delays the making of ranges, `slow_map_ms` that of mappings.
 */
#include <linux/delay.h>
#include <linux/module.h>

#include "space.h"

static unsigned int slow_ms;
module_param(slow_ms, uint, 0600);
static unsigned int slow_map_ms;
module_param(slow_map_ms, uint, 0600);

static const u8 gpu_uuids[SHIM_GPUS][16] = {
	{ 0x5a, 0x5a, 0x5a, 0x5a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 },
	{ 0x5b, 0x5a, 0x5a, 0x5a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 },
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

static bool wrong(u64 base, u64 length, u32 alignment)
{
	return base == 0 || length == 0 || !IS_ALIGNED(base | length, alignment);
}

u32 shim_create(struct va_space *space, const struct shim_range *range)
{
	if (wrong(range->base, range->length, 4096))
		return INVALID_ADDRESS;
	return space_add(space, range->base, range->length, true);
}

u32 uvm_api_create_external_range(struct create_params *params, struct file *file);
noinline u32 uvm_api_create_external_range(struct create_params *params, struct file *file)
{
	struct shim_range range = { .base = params->base, .length = params->length };
	u32 status;

	power_check();
	msleep(slow_ms);
	status = shim_create(space_of(file), &range);
	power_check();
	return status;
}

u32 uvm_page_table_range_vec_init(void *tree, u64 start, u64 size, u32 page_size, u32 flags,
				  struct extent *pte);
noinline u32 uvm_page_table_range_vec_init(void *tree, u64 start, u64 size, u32 page_size,
					   u32 flags, struct extent *pte)
{
	pte->base = start;
	pte->length = size;
	return OK;
}

static u32 map(struct va_space *space, int gpu, u64 base, u64 length, u64 page)
{
	struct mapping wanted = {
		.base = base, .length = length, .page = page ? page : ALIGNED, .sparse = !page
	};

	if (wrong(base, length, (u32)wanted.page))
		return INVALID_ADDRESS;
	uvm_page_table_range_vec_init(NULL, base, length, (u32)wanted.page, 0, &wanted.pte);
	return space_map(space, gpu, &wanted);
}

u32 shim_map(struct va_space *space, const struct shim_range *range)
{
	return map(space, 0, range->base, range->length, range->page);
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
	int gpu = gpu_of(params->gpu);
	u32 status;

	power_check();
	if (gpu < 0 || !space->has_gpu[gpu])
		return INVALID_DEVICE;
	msleep(slow_map_ms);
	status = map(space, gpu, params->base, params->length, 0);
	power_check();
	return status;
}
