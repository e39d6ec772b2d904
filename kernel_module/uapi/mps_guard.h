/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * /dev/mps_guard, for its readers.
 *
 * read(2) gives whole records of MPS_GUARD_EVENT_SIZE bytes, oldest first, and blocks (or EAGAIN)
 * while there is none; poll(2) works. Every open file has a place of its own in the ring of
 * MPS_GUARD_RING records; `dropped` counts what it missed. write(2) takes one line:
 *   "ack N"      the agent ends the client of incident N itself; the module will not, unless the
 *                client still lives ack_ms later (ENOENT: no such incident)
 *   "gpu HEX"    32 hex digits: a GPU whose address spaces are to be sunk
 *   "pid N"      for scope=1: guard this process
 */
#ifndef UAPI_MPS_GUARD_H
#define UAPI_MPS_GUARD_H

#include <linux/types.h>

#define MPS_GUARD_VERSION 1
#define MPS_GUARD_EVENT_SIZE 128
#define MPS_GUARD_RING 256

enum mps_guard_kind {
	MPS_GUARD_HELD = 1, /* the first fatal fault of an incident is held back */
	MPS_GUARD_PASSED = 2, /* the driver does what it always does; `why` says why */
	MPS_GUARD_SUNK = 3, /* something is mapped under it; neighbours go on */
	MPS_GUARD_KILLED = 4, /* the module ended the client: no ack in time */
	MPS_GUARD_RELEASED = 5, /* the client's address space was let go */
};

/*
 * why: 0 held, 1 off, 2 observe mode, 3 a reason that no mapping cures, 4 deadline, 5 too many
 * replays, 6 too many windows, 7 given up before, 8 table full, 9 null page, 10 the mapping did not
 * help, 11 rate limit, 12 no process holds the address space, 13 not in scope, 14 the driver made
 * no mapping, 15 the GPUs sleep.
 */
struct mps_guard_event {
	__u32 version;
	__u32 size;
	__u64 sequence;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 incident; /* one client's faults have one number */
	__u64 address;
	__u64 start_ns; /* start time of `pid`, since boot */
	__u64 cgroup;
	__u64 dropped;
	__u32 kind;
	__u32 why;
	__u32 gpu; /* the driver's own number of the GPU */
	__u32 reason; /* 1 invalid address, 2 invalid permissions; others: the driver's own */
	__s32 pid; /* 0: not known */
	__u32 uid;
	__u32 windows;
	__u32 holds; /* rounds of replays that were held */
	__u32 holders; /* processes that hold the address space, the server included */
	__u32 reserved;
	char comm[16];
	__u8 padding[8];
};

#endif
