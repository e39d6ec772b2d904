/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hold or pass: the whole decision about one fatal MMU fault, as a pure function.
 *
 * Job: given the limits, what is known of the faulting address space and the time, say whether the
 * driver's cancel of this fault is let through (PASS: exactly today's behaviour) or held back for
 * another replay (HOLD). The caller keeps one struct mg_space per address space and locks it.
 * Guarantees, fuzzed in user space (tests/policy_test.c): once an episode is older than the
 * deadline, or a budget is used up, the answer is PASS, and it stays PASS for that address space.
 *
 * Compiles in the kernel and in user space; includes nothing of NVIDIA's.
 */
#ifndef MG_POLICY_H
#define MG_POLICY_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
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
};

enum mg_state {
	MG_IDLE = 0, /* no fault of this address space is waiting */
	MG_SINKING, /* held; the worker is to map something under the address */
	MG_GIVEN_UP, /* for good: every further fault passes */
};

struct mg_limits {
	bool enabled;
	bool observe; /* record, never hold */
	bool null_page; /* page 0 can be sunk on this driver */
	u64 deadline_ns; /* longest episode from first hold to sunk */
	u32 max_holds; /* replays of one address space in all */
	u32 max_windows; /* sunk windows of one address space in all */
	u64 window_bytes; /* first window; a power of two of at least MG_SMALLEST */
	u32 rate; /* clients of one user whose faults are sunk: so many at once, so many a minute */
};

struct mg_window {
	u64 base;
	u64 length;
};

struct mg_space {
	enum mg_state state;
	u64 since_ns; /* SINKING: when the waiting fault was first held; IDLE: when it was sunk */
	struct mg_window sunk; /* the newest window */
	u32 repeats; /* faults inside it since */
	u32 holds;
	u32 windows;
};

#define MG_SMALLEST (64ull << 10) /* smallest page that the driver maps sparse */
#define MG_LARGEST (1ull << 30)
#define MG_REPEATS \
	256u /* entries that may be in flight while the mapping is made: one buffer full */

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

/* Time does not run backwards; should a caller's clock do so, the wait is over. */
static inline bool mg_too_old(const struct mg_limits *limits, const struct mg_space *space, u64 now)
{
	return now < space->since_ns || now - space->since_ns > limits->deadline_ns;
}

static inline struct mg_answer mg_decide(const struct mg_limits *limits, struct mg_space *space,
					 u32 reason, u64 va, u64 now_ns)
{
	struct mg_answer answer = { MG_HOLD, MG_WHY_HELD, false };

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
	if (space->state == MG_SINKING && mg_too_old(limits, space, now_ns))
		return mg_give_up(space, MG_WHY_DEADLINE);
	if (space->holds >= limits->max_holds)
		return mg_give_up(space, MG_WHY_HOLDS);
	if (space->state == MG_IDLE && mg_inside(space->sunk, va)) {
		/*
		 * Was in flight when the mapping was made; if it comes back again and again the
		 * mapping does not help.
		 */
		if (space->repeats >= MG_REPEATS || mg_too_old(limits, space, now_ns))
			return mg_give_up(space, MG_WHY_REPEATS);
		space->repeats++;
	} else if (space->state == MG_IDLE) {
		if (space->windows >= limits->max_windows)
			return mg_give_up(space, MG_WHY_WINDOWS);
		space->state = MG_SINKING;
		space->since_ns = now_ns;
		answer.start = true;
	}
	space->holds++;
	return answer;
}

/*
 * The worker's result. After giving up a late success changes nothing: the fault has passed
 * already.
 */
static inline void mg_settle(struct mg_space *space, bool sunk, struct mg_window window, u64 now_ns)
{
	if (space->state != MG_SINKING)
		return;
	space->state = sunk ? MG_IDLE : MG_GIVEN_UP;
	if (!sunk)
		return;
	space->windows++;
	space->sunk = window;
	space->repeats = 0;
	space->since_ns = now_ns;
}

#define MG_RATE_USERS 64
#define MG_MINUTE_NS 60000000000ull

/*
 * Each user's budget of incidents, full at first and filled again within a minute. `full_ns` is
 * when it will be full: every incident moves it by a minute's share, and a budget that would need
 * more than a minute to fill is empty. A user without an entry, or whose entry was given to another
 * (the one that is full soonest), has a full one: forgetting never takes anything away, so nobody's
 * storm is paid by others.
 */
struct mg_rates {
	struct {
		u64 full_ns; /* 0: the entry is free */
		u32 uid;
	} user[MG_RATE_USERS];
};

static inline bool mg_rate_take(struct mg_rates *rates, u32 uid, u32 per_minute, u64 now_ns)
{
	u64 share, full = now_ns;
	u32 i, at = 0;

	if (per_minute == 0)
		return false;
	for (i = 0; i < MG_RATE_USERS; i++) {
		if (rates->user[i].full_ns && rates->user[i].uid == uid) {
			/* Should a caller's clock run backwards, it is empty at worst. */
			if (rates->user[i].full_ns > now_ns + MG_MINUTE_NS)
				rates->user[i].full_ns = now_ns + MG_MINUTE_NS;
			at = i;
			full = rates->user[i].full_ns;
			break;
		}
		if (rates->user[i].full_ns < rates->user[at].full_ns)
			at = i;
	}
	if (full < now_ns)
		full = now_ns;
	share = MG_MINUTE_NS / per_minute;
	if (full + share > now_ns + MG_MINUTE_NS)
		return false;
	rates->user[at].uid = uid;
	rates->user[at].full_ns = full + share;
	return true;
}

/*
 * Bytes to try first: the configured window, four times as much for every window that this address
 * space has already used, so that a storm dies out.
 */
static inline u64 mg_first_window(const struct mg_limits *limits, u32 windows)
{
	u64 bytes = limits->window_bytes < MG_SMALLEST ? MG_SMALLEST : limits->window_bytes;

	while (windows-- && bytes < MG_LARGEST)
		bytes *= 4;
	return bytes < MG_LARGEST ? bytes : MG_LARGEST;
}

/*
 * The aligned window of `bytes` (a power of two) around an address. The driver refuses a base of 0,
 * so a window that would begin there begins one smallest page later; a window that has nothing left
 * then has length 0.
 */
static inline struct mg_window mg_window_around(u64 va, u64 bytes)
{
	struct mg_window window = { va & ~(bytes - 1), bytes };

	if (window.base == 0) {
		window.base = MG_SMALLEST;
		window.length = bytes > MG_SMALLEST ? bytes - MG_SMALLEST : 0;
	}
	return window;
}

#endif
