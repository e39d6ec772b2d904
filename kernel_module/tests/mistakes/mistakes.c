// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mistakes on purpose, made once each when this is loaded: whoever is to find them in the guard
 * must find them here. Only for kernels that look (tests/guard/debug.config); others would be
 * harmed. The order of locks comes first: after any report the kernel may look at locks no more.
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

static DEFINE_RAW_SPINLOCK(outer);
static DEFINE_RAW_SPINLOCK(inner);

static void sleep_under_a_lock(void)
{
	raw_spin_lock(&outer);
	might_sleep();
	raw_spin_unlock(&outer);
}

static void locks_in_both_orders(void)
{
	raw_spin_lock(&outer);
	raw_spin_lock(&inner);
	raw_spin_unlock(&inner);
	raw_spin_unlock(&outer);
	raw_spin_lock(&inner);
	raw_spin_lock(&outer);
	raw_spin_unlock(&outer);
	raw_spin_unlock(&inner);
}

static void use_after_free(void)
{
	u8 *bytes = kmalloc(32, GFP_KERNEL);

	if (!bytes)
		return;
	kfree(bytes);
	WRITE_ONCE(bytes[3], 1);
}

static int __init mistakes_init(void)
{
	locks_in_both_orders();
	sleep_under_a_lock();
	use_after_free();
	return 0;
}

static void __exit mistakes_exit(void)
{
}

module_init(mistakes_init);
module_exit(mistakes_exit);
MODULE_LICENSE("GPL v2");
MODULE_DESCRIPTION("Mistakes on purpose, for kernels that look for them");
