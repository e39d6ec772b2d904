/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of mps_guard.ko know of each other.
 *
 *   hooks.c   two ftrace hooks in the driver's path of a fatal MMU fault; they decide (mg_policy.h) and never sleep
 *   space.c   the table of faulting address spaces and the worker that takes one from held to sunk to ended
 *   owner.c   which processes hold an address space; which of them is the client
 *   sink.c    the driver's own entry points that put sparse mappings under an address
 *   events.c  /dev/mps_guard: records out, words of the agent in
 *   main.c    parameters, load and unload
 */
#ifndef MPS_GUARD_H
#define MPS_GUARD_H

#include <linux/fs.h>
#include <linux/pid.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <linux/workqueue.h>

#include "mg_policy.h"
#include "uapi/mps_guard.h"

#define MG_MAX_OWNERS 8
#define MG_MAX_GPUS 16

enum mg_scope { MG_SCOPE_MPS, MG_SCOPE_LISTED, MG_SCOPE_ALL };

/* main.c */
struct mg_limits mg_limits_now(void);
enum mg_scope mg_scope_now(void);
unsigned int mg_kill_ms(void);
unsigned int mg_linger_ms(void);
unsigned int mg_rate_per_minute(void);
void *mg_symbol(const char *name); /* address of a function of the driver, NULL when it has none of that name */

/* hooks.c */
int mg_hooks_arm(void);
void mg_hooks_disarm(void);

/* space.c */
int mg_spaces_init(void);
void mg_spaces_exit(void);
enum mg_verdict mg_space_fault(void *va_space, u32 gpu, u32 reason, u64 va); /* atomic context */
void mg_space_gone(void *va_space); /* atomic context */
void mg_space_ack(u64 incident);

/* owner.c */
struct mg_owner {
	struct pid *pid; /* reference held */
	u64 start_ns;
	u64 cgroup;
	kuid_t uid;
	char comm[16];
	bool server;
};

struct mg_owners {
	struct file *file; /* reference held: keeps the address space alive */
	unsigned int count;
	struct mg_owner owner[MG_MAX_OWNERS];
};

void mg_owners_find(void *va_space, struct mg_owners *owners);
void mg_owners_put(struct mg_owners *owners);
bool mg_owners_in_scope(const struct mg_owners *owners);
const struct mg_owner *mg_owners_client(const struct mg_owners *owners);
int mg_list_pid(int tgid);

/* sink.c */
int mg_sink_init(void);
void mg_sink_exit(void);
bool mg_sink(struct file *file, u64 va, u32 windows_before);
int mg_sink_learn_gpu(const u8 uuid[16]);
bool mg_sink_null_page(void);

/* events.c */
int mg_events_init(void);
void mg_events_exit(void);
void mg_event(struct mps_guard_event *event); /* any context; fills in version, size, sequence and time */

#endif
