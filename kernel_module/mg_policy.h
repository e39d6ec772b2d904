/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hold or pass: the whole decision about one fatal MMU fault, as a pure function.
 *
 * Job: given the limits, what is known of the faulting address space and the time, say whether the
 * driver's cancel of this fault is let through (PASS: exactly today's behaviour) or held back for
 * another replay (HOLD). The caller keeps one struct mg_space per address space and locks it.
 * Guarantees, fuzzed in user space (tests/policy_test.c): once an address space has been held for
 * longer than the deadline in all, or a budget is used up, the answer is PASS, and it stays PASS.
 *
 * Compiles in the kernel and in user space; includes nothing of NVIDIA's.
 */
#ifndef MG_POLICY_H
#define MG_POLICY_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
typedef uint64_t u64;
typedef uint32_t u32;
#endif

/*
 * Why the driver gives up on a fault: the numbers of its public tools interface. Only the first two
 * can be cured by a mapping.
 */
enum mg_reason {
	MG_REASON_INVALID_ADDRESS = 1,
	MG_REASON_INVALID_PERMISSIONS = 2,
	MG_REASON_INVALID_FAULT_TYPE = 3,
	MG_REASON_OUT_OF_MEMORY = 4,
	MG_REASON_INTERNAL_ERROR = 5,
};

enum mg_verdict { MG_PASS = 0, MG_HOLD = 1 };

/* Why the answer was PASS; stands in the event record (uapi/mps_guard.h says what each means). */
enum mg_why {
	MG_WHY_HELD = 0,
	MG_WHY_OFF = 1,
	MG_WHY_OBSERVE = 2,
	MG_WHY_REASON = 3,
	MG_WHY_DEADLINE = 4,
	MG_WHY_HOLDS = 5,
	MG_WHY_WINDOWS = 6,
	MG_WHY_GIVEN_UP = 7,
	MG_WHY_NO_SLOT = 8,
	MG_WHY_NULL_PAGE = 9,
	MG_WHY_REPEATS = 10,
	MG_WHY_RATE = 11,
	MG_WHY_NO_OWNER = 12,
	MG_WHY_SCOPE = 13,
	MG_WHY_NO_ROOM = 14,
	MG_WHY_ASLEEP = 15,
};

enum mg_state {
	MG_IDLE = 0, /* no fault of this address space is waiting */
	MG_SINKING, /* held; the worker is to map something under the addresses that are wanted */
	MG_GIVEN_UP, /* for good: every further fault passes */
};

struct mg_limits {
	bool enabled;
	bool observe; /* record, never hold */
	bool null_page; /* page 0 can be sunk on this driver */
	u64 deadline_ns; /* longest hold of one address space in all */
	u32 max_holds; /* rounds of replays of one address space in all */
	u32 max_windows; /* sunk windows of one address space in all, at most MG_WINDOWS */
	u64 window_bytes; /* first window; a power of two of at least MG_SMALLEST */
	u32 rate; /* clients of one user whose faults are sunk: so many at once, so many a minute */
};

struct mg_window {
	u64 base;
	u64 length;
};

#define MG_SMALLEST (64ull << 10) /* smallest page that the driver maps sparse */
#define MG_REGION (2ull << 20) /* faults of one region are one wish */
#define MG_LARGEST (1ull << 30)
#define MG_WINDOWS 64u
#define MG_WANTED 64u
#define MG_ORDERS 8u
#define MG_REPEATS 16u /* rounds that may be under way while a mapping is made, on all GPUs */

struct mg_sunk {
	struct mg_window window;
	u32 holds; /* rounds of the address space until it was made */
};

struct mg_space {
	enum mg_state state;
	u64 since_ns; /* up to here the time of holds is in `spent_ns` */
	u64 spent_ns;
	u64 newest[MG_ORDERS]; /* by GPU: the address of its newest fault */
	u32 holds; /* rounds of faults that were held */
	u32 windows;
	u32 wanting;
	u64 wanted[MG_WANTED]; /* to be sunk by the worker, each in a region of its own */
	struct mg_sunk sunk[MG_WINDOWS];
};

struct mg_answer {
	enum mg_verdict verdict;
	enum mg_why why;
	bool start; /* the worker is to be started: first hold of an episode, or an observation */
};

static inline struct mg_answer mg_pass(enum mg_why why)
{
	struct mg_answer answer = { MG_PASS, why, false };

	return answer;
}

/* Give up on an address space for good. */
static inline struct mg_answer mg_give_up(struct mg_space *space, enum mg_why why)
{
	space->state = MG_GIVEN_UP;
	return mg_pass(why);
}

static inline bool mg_inside(struct mg_window window, u64 va)
{
	return va - window.base < window.length;
}

/* The window that was sunk under an address, NULL when there is none. */
static inline const struct mg_sunk *mg_sunk_at(const struct mg_space *space, u64 va)
{
	u32 i;

	for (i = 0; i < space->windows; i++)
		if (mg_inside(space->sunk[i].window, va))
			return &space->sunk[i];
	return NULL;
}

/*
 * The time from one hold to the next is time that the driver spent on this address space, and its
 * other clients waited. Time does not run backwards; should a caller's clock do so, it is over.
 */
static inline bool mg_out_of_time(const struct mg_limits *limits, struct mg_space *space, u64 now)
{
	if (now < space->since_ns)
		return true;
	space->spent_ns += now - space->since_ns;
	space->since_ns = now;
	return space->spent_ns > limits->deadline_ns;
}

/*
 * The driver cancels every distinct page of a client before it replays, in ascending order. So an
 * address that is not above the one before it begins a new round.
 */
static inline bool mg_new_round(struct mg_space *space, u32 gpu, u64 va)
{
	u64 *newest = &space->newest[gpu % MG_ORDERS];
	bool begins = !space->holds || va <= *newest;

	*newest = va;
	return begins;
}

/* When there are more regions than can be remembered, the others come again in the next round. */
static inline void mg_want(struct mg_space *space, u64 va)
{
	u32 i;

	for (i = 0; i < space->wanting; i++)
		if ((space->wanted[i] ^ va) < MG_REGION)
			return;
	if (space->wanting < MG_WANTED)
		space->wanted[space->wanting++] = va;
}

static inline struct mg_answer mg_decide(const struct mg_limits *limits, struct mg_space *space,
					 u32 reason, u32 gpu, u64 va, u64 now_ns)
{
	struct mg_answer answer = { MG_HOLD, MG_WHY_HELD, false };
	const struct mg_sunk *sunk;

	if (!limits->enabled)
		return mg_pass(MG_WHY_OFF);
	if (space->state == MG_GIVEN_UP)
		return mg_pass(MG_WHY_GIVEN_UP);
	if (reason != MG_REASON_INVALID_ADDRESS && reason != MG_REASON_INVALID_PERMISSIONS)
		return mg_give_up(space, MG_WHY_REASON);
	if (va < MG_SMALLEST && !limits->null_page)
		return mg_give_up(space, MG_WHY_NULL_PAGE);
	if (limits->observe) {
		answer = mg_give_up(space, MG_WHY_OBSERVE);
		answer.start = true;
		return answer;
	}
	sunk = mg_sunk_at(space, va);
	/* While nothing was held, time was the client's own. */
	if (space->state == MG_IDLE && !sunk && now_ns >= space->since_ns)
		space->since_ns = now_ns;
	if (mg_out_of_time(limits, space, now_ns))
		return mg_give_up(space, sunk ? MG_WHY_REPEATS : MG_WHY_DEADLINE);
	if (mg_new_round(space, gpu, va)) {
		if (space->holds >= limits->max_holds)
			return mg_give_up(space, MG_WHY_HOLDS);
		space->holds++;
	}
	if (sunk) {
		/*
		 * Was under way when the mapping was made; if it comes back again and again the
		 * mapping does not help.
		 */
		if (space->holds - sunk->holds > MG_REPEATS)
			return mg_give_up(space, MG_WHY_REPEATS);
		return answer;
	}
	if (space->state == MG_IDLE) {
		if (space->windows >= limits->max_windows || space->windows >= MG_WINDOWS)
			return mg_give_up(space, MG_WHY_WINDOWS);
		space->state = MG_SINKING;
		answer.start = true;
	}
	mg_want(space, va);
	return answer;
}

/* What the worker does next. */
enum mg_next {
	MG_NEXT_SINK, /* map something under this address, then mg_settle */
	MG_NEXT_DONE, /* all that was wanted is sunk */
	MG_NEXT_LOST, /* given up: before, or now, for `why` */
};

static inline enum mg_next mg_next(const struct mg_limits *limits, struct mg_space *space, u64 *va,
				   enum mg_why *why)
{
	u32 i, left = 0;

	*why = MG_WHY_HELD;
	if (space->state != MG_SINKING)
		return MG_NEXT_LOST;
	for (i = 0; i < space->wanting; i++)
		if (!mg_sunk_at(space, space->wanted[i]))
			space->wanted[left++] = space->wanted[i];
	space->wanting = left;
	if (!space->wanting) {
		space->state = MG_IDLE;
		return MG_NEXT_DONE;
	}
	if (space->windows >= limits->max_windows || space->windows >= MG_WINDOWS) {
		*why = mg_give_up(space, MG_WHY_WINDOWS).why;
		return MG_NEXT_LOST;
	}
	*va = space->wanted[0];
	return MG_NEXT_SINK;
}

/*
 * A window has been made under an address, or could not be: length 0. After giving up a late
 * success changes nothing: the fault has passed already.
 */
static inline void mg_settle(struct mg_space *space, struct mg_window window, u64 now_ns)
{
	struct mg_sunk *sunk = &space->sunk[space->windows];

	if (space->state != MG_SINKING)
		return;
	if (!window.length) {
		space->state = MG_GIVEN_UP;
		return;
	}
	if (now_ns > space->since_ns) {
		space->spent_ns += now_ns - space->since_ns;
		space->since_ns = now_ns;
	}
	sunk->window = window;
	sunk->holds = space->holds;
	space->windows++;
}

/*
 * Bytes to try first: the configured window, four times as much for every window that this address
 * space has already used, so that a storm dies out; more if that is near enough to cover what is
 * wanted as well, since every further window waits for a round of the driver to end.
 */
static inline u64 mg_first_window(const struct mg_limits *limits, const struct mg_space *space,
				  u64 va)
{
	u64 bytes = limits->window_bytes < MG_SMALLEST ? MG_SMALLEST : limits->window_bytes;
	u32 i;

	for (i = 0; i < space->windows && bytes < MG_LARGEST; i++)
		bytes *= 4;
	if (bytes > MG_LARGEST)
		bytes = MG_LARGEST;
	for (i = 0; i < space->wanting; i++)
		while (bytes < MG_LARGEST && (space->wanted[i] ^ va) < MG_LARGEST &&
		       (space->wanted[i] ^ va) >= bytes)
			bytes *= 2;
	return bytes;
}

/*
 * The aligned window of `bytes` (a power of two) around an address, as far as it is clear of those
 * that are there already. The driver refuses a base of 0, so a window that would begin there begins
 * one smallest page later; a window that has nothing left then has length 0.
 */
static inline struct mg_window mg_window_around(const struct mg_space *space, u64 va, u64 bytes)
{
	u64 begin = va & ~(bytes - 1), end = begin + bytes;
	struct mg_window window;
	u32 i;

	if (!begin)
		begin = MG_SMALLEST;
	for (i = 0; i < space->windows; i++) {
		const struct mg_window *sunk = &space->sunk[i].window;

		if (sunk->base > va && sunk->base < end)
			end = sunk->base;
		if (sunk->base <= va && sunk->base + sunk->length > begin)
			begin = sunk->base + sunk->length;
	}
	window.base = begin;
	window.length = begin < end ? end - begin : 0;
	return window;
}

#endif
