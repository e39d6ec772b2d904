// SPDX-License-Identifier: GPL-2.0-only
/*
 * mps_guard: a fatal MMU fault of one MPS client ends that client only.
 *
 * Hold, sink, end: the driver's cancel of the fault is held back (the fault repeats), a sparse
 * mapping is put under the address, the client is ended by the node agent. If any of it fails
 * within the deadline the next cancel goes through: the worst case is today's. Both hooked
 * functions run on fatal faults only, so normal running costs nothing.
 *
 * Relies on names of functions of nvidia-uvm, found at load; refuses to load when one is missing or
 * cannot be traced. It is off until `enabled` is set. It holds a reference on nvidia-uvm: unload
 * mps_guard first.
 */
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/rcupdate.h>

#include "mps_guard.h"

#define MG_DRIVER "nvidia_uvm"

static bool enabled;
module_param(enabled, bool, 0644);
MODULE_PARM_DESC(enabled, "isolate faults (default off)");
static bool observe;
module_param(observe, bool, 0644);
MODULE_PARM_DESC(observe, "record what would be held, hold nothing (default off)");
static bool null_page;
module_param(null_page, bool, 0400);
MODULE_PARM_DESC(null_page, "also sink the null page; at load only (default off)");
static unsigned int scope;
module_param(scope, uint, 0600);
MODULE_PARM_DESC(scope, "0 MPS clients (default), 1 processes that the agent listed, 2 all");
static unsigned int deadline_ms = 200;
module_param(deadline_ms, uint, 0600);
MODULE_PARM_DESC(deadline_ms, "longest hold of one fault, milliseconds (default 200)");
static unsigned int max_holds = 4096;
module_param(max_holds, uint, 0600);
MODULE_PARM_DESC(max_holds, "replays of one client in all (default 4096)");
static unsigned int max_windows = 64;
module_param(max_windows, uint, 0600);
MODULE_PARM_DESC(max_windows, "sunk windows of one client in all (default 64)");
static unsigned int window_kb = 2048;
module_param(window_kb, uint, 0600);
MODULE_PARM_DESC(window_kb, "first window, KiB, rounded up to a power of two (default 2048)");
static unsigned int kill_ms = 1000;
module_param(kill_ms, uint, 0600);
MODULE_PARM_DESC(kill_ms, "end a client that no agent has acknowledged by then; 0 never (1000)");
static unsigned int ack_ms = 10000;
module_param(ack_ms, uint, 0600);
MODULE_PARM_DESC(ack_ms, "end an acknowledged client that lives on for so long (default 10000)");
static unsigned int linger_ms = 1000;
module_param(linger_ms, uint, 0600);
MODULE_PARM_DESC(linger_ms, "keep the address space after the client has gone (default 1000)");
static unsigned int rate = 30;
module_param(rate, uint, 0600);
MODULE_PARM_DESC(rate, "incidents that one minute may hold, all users together (default 30)");

static unsigned long (*lookup_name)(const char *name);
static long (*read_nofault)(void *to, const void *from, size_t size);
static struct module *driver;

struct mg_limits mg_limits_now(void)
{
	struct mg_limits limits = {
		.enabled = READ_ONCE(enabled) || READ_ONCE(observe),
		.observe = READ_ONCE(observe),
		.null_page = mg_sink_null_page(),
		.deadline_ns = (u64)READ_ONCE(deadline_ms) * NSEC_PER_MSEC,
		.max_holds = READ_ONCE(max_holds),
		.max_windows = READ_ONCE(max_windows),
		.window_bytes = roundup_pow_of_two(clamp(READ_ONCE(window_kb), 64u, 1u << 20))
				<< 10,
	};

	return limits;
}

enum mg_scope mg_scope_now(void)
{
	return (enum mg_scope)min(READ_ONCE(scope), (unsigned int)MG_SCOPE_ALL);
}

unsigned int mg_kill_ms(void)
{
	return READ_ONCE(kill_ms);
}

unsigned int mg_ack_ms(void)
{
	return max(READ_ONCE(ack_ms), READ_ONCE(kill_ms));
}

unsigned int mg_linger_ms(void)
{
	return min(READ_ONCE(linger_ms), 60000u);
}

unsigned int mg_rate_per_minute(void)
{
	return READ_ONCE(rate);
}

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

void *mg_symbol(const char *name)
{
	char full[KSYM_NAME_LEN];

	snprintf(full, sizeof(full), "%s:%s", MG_DRIVER, name);
	return (void *)lookup_name(full);
}

int mg_peek(u64 *value, unsigned long address)
{
	return read_nofault(value, (const void *)address, sizeof(*value)) ? -EFAULT : 0;
}

static int hold_driver(void)
{
	struct module *(*find)(const char *name) = (void *)lookup_name("find_module");

	if (!find)
		return -ENOENT;
	rcu_read_lock_sched();
	driver = find(MG_DRIVER);
	if (driver && !try_module_get(driver))
		driver = NULL;
	rcu_read_unlock_sched();
	return driver ? 0 : -ENODEV;
}

static int __init mg_init(void)
{
	int error = find_lookup();

	if (error) {
		pr_err("mps_guard: kernel: no kallsyms_lookup_name to probe: %d\n", error);
		return error;
	}
	read_nofault = (void *)lookup_name("copy_from_kernel_nofault");
	if (!read_nofault) {
		pr_err("mps_guard: kernel: no such function: copy_from_kernel_nofault\n");
		return -ENOENT;
	}
	error = hold_driver();
	if (error) {
		pr_err("mps_guard: driver: not loaded: %s\n", MG_DRIVER);
		return error;
	}
	error = mg_spaces_init();
	if (error)
		goto put_driver;
	error = mg_sink_init(null_page);
	if (error)
		goto spaces_stop;
	error = mg_events_init();
	if (error)
		goto sink_exit;
	error = mg_hooks_arm();
	if (error)
		goto events_exit;
	pr_info("mps_guard: armed, %s\n", enabled ? "enabled" : "off until enabled=1");
	return 0;

events_exit:
	mg_events_exit();
sink_exit:
	mg_sink_exit();
spaces_stop:
	mg_spaces_stop();
put_driver:
	module_put(driver);
	return error;
}

/*
 * Fault hooks first: from then on every cancel passes, and what was held passes at its next replay.
 * The hooks of sink.c stay until the workers have ended, who rely on them.
 */
static void __exit mg_exit(void)
{
	mg_hooks_disarm();
	mg_spaces_stop();
	mg_sink_exit();
	mg_events_exit();
	module_put(driver);
}

module_init(mg_init);
module_exit(mg_exit);
MODULE_LICENSE("GPL v2");
MODULE_DESCRIPTION("Isolates fatal MMU faults of one MPS client from its neighbours");
MODULE_VERSION("0.1.0");
