// SPDX-License-Identifier: GPL-2.0-only
/*
 * The driver, known by names alone: a reference on it, the addresses of its functions, and hooks at
 * their beginnings.
 *
 * Whatever is missing or cannot be hooked is told here, by name, and refused.
 */
#include <linux/ftrace.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/rcupdate.h>

#include "mps_guard.h"

#define MG_DRIVER "nvidia_uvm"

static unsigned long (*lookup_name)(const char *name);
static long (*read_nofault)(void *to, const void *from, size_t size);
static void (*free_filter)(struct ftrace_ops *ops); /* not exported by every kernel */
static struct module *driver;

/*
 * A probe's address may lie behind the function's landing pad (ENDBR); the symbol's own start is
 * what can be called.
 */
static unsigned long start_of(unsigned long address)
{
	char text[KSYM_SYMBOL_LEN];
	unsigned long offset = 0;
	char *plus;

	sprint_symbol(text, address);
	plus = strchr(text, '+');
	if (plus && sscanf(plus, "+0x%lx", &offset) == 1)
		return address - offset;
	return address;
}

/* kallsyms_lookup_name is not exported; a probe on it, which is never armed, tells where it is. */
static int find_lookup(void)
{
	struct kprobe probe = {
		.symbol_name = "kallsyms_lookup_name",
		.flags = KPROBE_FLAG_DISABLED,
	};
	int error = register_kprobe(&probe);

	if (error)
		return error;
	lookup_name = (void *)start_of((unsigned long)probe.addr);
	unregister_kprobe(&probe);
	return 0;
}

static int hold_driver(void)
{
	struct module *(*find)(const char *name);

	find = (void *)lookup_name("find_module");
	if (!find)
		return -ENOENT;
	rcu_read_lock_sched();
	driver = find(MG_DRIVER);
	if (driver && (driver->state != MODULE_STATE_LIVE || !try_module_get(driver)))
		driver = NULL;
	rcu_read_unlock_sched();
	return driver ? 0 : -ENODEV;
}

int mg_driver_find(void)
{
	int error = find_lookup();

	if (error) {
		pr_err("mps_guard: kernel: no kallsyms_lookup_name to probe: %d\n", error);
		return error;
	}
	read_nofault = (void *)lookup_name("copy_from_kernel_nofault");
	free_filter = (void *)lookup_name("ftrace_free_filter");
	if (!read_nofault || !free_filter) {
		pr_err("mps_guard: kernel: no such function: %s\n",
		       read_nofault ? "ftrace_free_filter" : "copy_from_kernel_nofault");
		return -ENOENT;
	}
	error = hold_driver();
	if (error)
		pr_err("mps_guard: driver: not loaded: %s\n", MG_DRIVER);
	return error;
}

void mg_driver_put(void)
{
	module_put(driver);
}

bool mg_is_driver(const struct module *module)
{
	return module == driver;
}

void *mg_symbol(const char *name)
{
	char full[KSYM_NAME_LEN];

	snprintf(full, sizeof(full), "%s:%s", MG_DRIVER, name);
	return (void *)lookup_name(full);
}

/* The driver is held and has come to life, so its own table of symbols stays. */
bool mg_driver_symbols(bool (*visit)(const char *name, void *data), void *data)
{
	const struct mod_kallsyms *symbols = &driver->core_kallsyms;
	unsigned int i;

	for (i = 0; i < symbols->num_symtab; i++)
		if (!visit(symbols->strtab + symbols->symtab[i].st_name, data))
			return false;
	return true;
}

int mg_missing(const char *anchor)
{
	pr_err("mps_guard: driver: anchor missing: %s\n", anchor);
	return -ENOENT;
}

int mg_peek(u64 *value, unsigned long address)
{
	return read_nofault(value, (const void *)address, sizeof(*value)) ? -EFAULT : 0;
}

/* 0, -ENOENT when the driver has no such function, or why it cannot be traced (told). */
static int filter(struct ftrace_ops *ops, const char *name, bool reset)
{
	unsigned long address = (unsigned long)mg_symbol(name);
	int error;

	if (!address)
		return -ENOENT;
	error = ftrace_set_filter_ip(ops, address, 0, reset);
	if (error)
		pr_err("mps_guard: driver: function cannot be traced: %s: %d\n", name, error);
	return error;
}

static int arm(struct ftrace_ops *ops, const char *what)
{
	int error = register_ftrace_function(ops);

	if (!error)
		return 0;
	free_filter(ops);
	pr_err("mps_guard: kernel: cannot be hooked, a live patch may hold it: %s: %d\n", what,
	       error);
	return error;
}

int mg_hook_all(struct ftrace_ops *ops, const char *const *names, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		int error = filter(ops, names[i], !i);

		if (error) {
			free_filter(ops);
			return error == -ENOENT ? mg_missing(names[i]) : error;
		}
	}
	return arm(ops, names[0]);
}

int mg_hook(struct ftrace_ops *ops, const char *name)
{
	return mg_hook_all(ops, &name, 1);
}

void mg_unhook(struct ftrace_ops *ops)
{
	unregister_ftrace_function(ops);
	free_filter(ops);
}
