/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of mps_guard.ko know of each other.
 *
 * Each uses only those below it:
 *
 *   main.c      load and unload
 *   hooks.c     ftrace hooks in the driver's path of a fatal MMU fault; they never sleep
 *   device.c    /dev/mps_guard: records out, words of the agent in
 *   worker.c    takes a faulting address space from held to sunk
 *   ending.c    the end of a client whose fault was sunk: kill, linger, let go
 *   table.c     the faulting address spaces; hold or pass (mg_policy.h)
 *   sink.c      sparse mappings under an address
 *   entry.c     the driver's own entry points, called as the driver would; out while the GPUs sleep
 *   cancels.c   which functions of the driver cancel a fault; are all of them known?
 *   owner.c     which processes hold an address space; which of them is the client
 *   ring.c      the records
 *   driver.c    the driver: its functions by name, hooks on them
 *   settings.c  parameters
 */
#ifndef MPS_GUARD_H
#define MPS_GUARD_H

#include <linux/fs.h>
#include <linux/pid.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <linux/workqueue.h>

#include "mg_policy.h"
#include "mg_rate.h"
#include "uapi/mps_guard.h"

#define MG_MAX_OWNERS 8
#define MG_MAX_GPUS 16

enum mg_scope { MG_SCOPE_MPS, MG_SCOPE_LISTED, MG_SCOPE_ALL };

/* settings.c */
struct mg_limits mg_limits_now(void);
void mg_null_page_refuse(void);
enum mg_scope mg_scope_now(void);
unsigned int mg_kill_ms(void);
unsigned int mg_ack_ms(void);
unsigned int mg_linger_ms(void);

/* driver.c */
struct ftrace_ops;
struct module;
int mg_driver_find(void); /* holds it; mg_driver_put lets it go, also after a failure */
void mg_driver_put(void);
bool mg_is_driver(const struct module *module);
void *
mg_symbol(const char *name); /* a function of the driver, NULL when it has none of that name */
int mg_peek(u64 *value, unsigned long address); /* any context; an error where nothing is mapped */
bool mg_driver_symbols(bool (*visit)(const char *name, void *data), void *data); /* until false */
int mg_missing(const char *anchor); /* says so */
/* Hooks say what is wrong themselves. */
int mg_hook(struct ftrace_ops *ops, const char *name);
int mg_hook_all(struct ftrace_ops *ops, const char *const *names, size_t count);
void mg_unhook(struct ftrace_ops *ops); /* its function runs nowhere any more */

/* ring.c */
struct mg_reader {
	u64 next;
	u64 dropped;
};

extern struct wait_queue_head mg_readers; /* woken at every record */
void mg_event(struct mps_guard_event *event); /* any context; fills in what all records have */
void mg_reader_begin(struct mg_reader *reader); /* at the oldest record there is */
bool mg_reader_next(struct mg_reader *reader, struct mps_guard_event *event);
bool mg_reader_has(const struct mg_reader *reader);
void mg_ring_exit(void);

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
	unsigned int holders; /* how many processes there were, listed below or not */
	unsigned int count;
	struct mg_owner owner[MG_MAX_OWNERS];
};

void mg_owners_find(void *va_space, struct mg_owners *owners);
void mg_owners_put(struct mg_owners *owners);
bool mg_owners_in_scope(const struct mg_owners *owners);
const struct mg_owner *mg_owners_client(const struct mg_owners *owners);
bool mg_owners_alive(void *va_space); /* somebody but a server holds it now */
unsigned int mg_owners_kill(void *va_space); /* everybody but servers; how many */
int mg_list_pid(int tgid);

/* cancels.c */
#define MG_CANCELS 3
int mg_cancels_find(const char *names[MG_CANCELS]); /* how many, or an error, which is told */

/* entry.c */
#define MG_OK 0x00u
#define MG_ADDRESS_IN_USE 0x68u
int mg_entry_init(void);
void mg_entry_exit(void);
void *mg_entry_begin(void); /* NULL while the GPUs sleep, or without memory */
void mg_entry_end(void *context);
u32 mg_entry_create(struct file *file, struct mg_window window); /* between the two */
u32 mg_entry_map(struct file *file, struct mg_window window, const u8 gpu[16]);

/* sink.c */
struct mg_entry;
int mg_sink_init(void);
void mg_sink_exit(void);
/* Something is under the address then, in this window; or why not. For the worker alone. */
enum mg_why mg_sink(struct mg_entry *entry, struct file *file, u64 va, u64 bytes,
		    struct mg_window *window);
int mg_sink_learn_gpu(const u8 uuid[16]);

/* table.c */
#define MG_ENTRIES 64

struct mg_entry {
	void *va_space; /* NULL: the entry is free */
	struct mg_space policy;
	u64 incident;
	u64 va;
	u32 gpu;
	u32 reason;
	bool working; /* the sink worker is queued or runs: the entry is its own */
	bool gone; /* its pointer means another address space; the entry waits for its worker */
	bool told_held; /* records were made */
	bool told_passed;
	u64 stand_in; /* the range that stands in for the null page; 0: there is none */
	bool acked;
	bool killed;
	u64 sunk_ns; /* when its first fault was sunk; 0: never, nobody is to be ended */
	u64 alone_ns; /* when its last holder had gone; 0: it has holders */
	u32 alone_holds; /* faults held until then */
	struct mg_owners owners;
	struct work_struct sink;
	struct delayed_work end;
};

extern struct mg_entry mg_entries[MG_ENTRIES];
extern struct workqueue_struct *mg_queue; /* runs the works of the entries */
extern raw_spinlock_t
	mg_spaces_lock; /* over every entry but `owners.file`, which its worker owns */
enum mg_verdict mg_space_fault(void *va_space, u32 gpu, u32 reason, u64 va); /* atomic context */
void mg_space_gone(void *va_space); /* atomic context */
int mg_space_ack(u64 incident);
bool mg_space_held(void *va_space); /* atomic context */
void mg_space_passed(struct mg_entry *entry, enum mg_why why); /* the record, once */
void mg_space_report(const struct mg_entry *entry, enum mps_guard_kind kind, enum mg_why why);

/* ending.c */
void mg_end_work(struct work_struct *work);
void mg_end_begin(struct mg_entry *entry); /* a fault of this client has been sunk */
void mg_end_at_unload(struct mg_entry *entry); /* its works have stopped */

/* worker.c */
int mg_worker_init(void);
void mg_worker_stop(void);

/* device.c */
int mg_device_init(void);
void mg_device_exit(void);

/* hooks.c */
int mg_hooks_arm(void);
void mg_hooks_let_pass(void); /* no fault is held from now on */
void mg_hooks_disarm(void); /* after that; ends of address spaces are not seen any more */

#endif
