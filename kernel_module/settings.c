// SPDX-License-Identifier: GPL-2.0-only
/*
 * The parameters, and what they mean to the rest: read anew for every decision, out of range values
 * bent into range here.
 */
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/module.h>

#include "mps_guard.h"

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
MODULE_PARM_DESC(deadline_ms, "longest hold of one client in all, milliseconds (default 200)");
static unsigned int max_holds = 4096;
module_param(max_holds, uint, 0600);
MODULE_PARM_DESC(max_holds, "rounds of replays of one client in all (default 4096)");
static unsigned int max_windows = 64;
module_param(max_windows, uint, 0600);
MODULE_PARM_DESC(max_windows, "sunk windows of one client in all (default and most: 64)");
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
MODULE_PARM_DESC(rate, "incidents of one user that are sunk at once, and per minute (default 30)");

struct mg_limits mg_limits_now(void)
{
	struct mg_limits limits = {
		.enabled = READ_ONCE(enabled) || READ_ONCE(observe),
		.observe = READ_ONCE(observe),
		.null_page = READ_ONCE(null_page),
		.deadline_ns = (u64)READ_ONCE(deadline_ms) * NSEC_PER_MSEC,
		.max_holds = READ_ONCE(max_holds),
		.max_windows = READ_ONCE(max_windows),
		.window_bytes = roundup_pow_of_two(clamp(READ_ONCE(window_kb), 64u, 1u << 20))
				<< 10,
		.rate = READ_ONCE(rate),
	};

	return limits;
}

/* This driver has no place for it; the parameter says so from now on. */
void mg_null_page_refuse(void)
{
	WRITE_ONCE(null_page, false);
}

enum mg_scope mg_scope_now(void)
{
	return (enum mg_scope)min_t(unsigned int, READ_ONCE(scope), MG_SCOPE_ALL);
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
