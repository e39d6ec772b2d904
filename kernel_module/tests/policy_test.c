// SPDX-License-Identifier: GPL-2.0-only
/*
 * The policy in user space: a table of cases, then random sequences against its one promise, with
 * an account of their own of what was held and for how long. Built with ASan and UBSan.
 */
#include "../mg_policy.h"
#include "../mg_rate.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define HERE (1ull << 40)
#define THERE (1ull << 41)

static const struct mg_limits usual = { .enabled = true,
					.deadline_ns = 200,
					.max_holds = 8,
					.max_windows = 2,
					.window_bytes = 2ull << 20,
					.rate = 4 };

static struct mg_answer decide(const struct mg_limits *limits, struct mg_space *space, u64 va,
			       u64 now)
{
	return mg_decide(limits, space, MG_REASON_INVALID_ADDRESS, 1, va, now);
}

/* What the worker does: everything that is wanted; how many windows it made. */
static u32 sink(const struct mg_limits *limits, struct mg_space *space, u64 now)
{
	enum mg_why why;
	u32 made = 0;
	u64 va;

	while (mg_next(limits, space, &va, &why) == MG_NEXT_SINK) {
		u64 bytes = mg_first_window(limits, space, va);

		mg_settle(space, mg_window_around(space, va, bytes), now);
		assert(mg_sunk_at(space, va));
		made++;
	}
	return made;
}

static void one_life(void)
{
	struct mg_space space = { 0 };
	struct mg_answer answer = decide(&usual, &space, HERE, 1000);

	assert(answer.verdict == MG_HOLD && answer.start && space.state == MG_SINKING);
	answer = decide(&usual, &space, HERE, 1100);
	assert(answer.verdict == MG_HOLD && !answer.start && space.holds == 2);
	assert(sink(&usual, &space, 1150) == 1);
	assert(space.state == MG_IDLE && space.windows == 1);
	/* It ran for a while, which was its own time; its next hold counts with those before. */
	answer = mg_decide(&usual, &space, MG_REASON_INVALID_PERMISSIONS, 1, THERE, 5000);
	assert(answer.verdict == MG_HOLD && answer.start);
	answer = decide(&usual, &space, THERE, 5050);
	assert(answer.verdict == MG_HOLD && !answer.start);
	answer = decide(&usual, &space, THERE, 5051);
	assert(answer.verdict == MG_PASS && answer.why == MG_WHY_DEADLINE);
	assert(sink(&usual, &space, 5300) == 0);
	mg_settle(&space, mg_window_around(&space, THERE, 2ull << 20), 5300);
	assert(space.state == MG_GIVEN_UP && space.windows == 1);
	answer = decide(&usual, &space, THERE, 9999);
	assert(answer.verdict == MG_PASS && answer.why == MG_WHY_GIVEN_UP);
}

static void what_passes(void)
{
	struct mg_limits limits = usual;
	struct mg_space space = { 0 };

	assert(mg_decide(&limits, &space, MG_REASON_OUT_OF_MEMORY, 1, HERE, 1).why ==
	       MG_WHY_REASON);
	space = (struct mg_space){ 0 };
	assert(decide(&limits, &space, 8, 1).why == MG_WHY_NULL_PAGE);
	limits.null_page = true;
	space = (struct mg_space){ 0 };
	assert(decide(&limits, &space, 8, 1).verdict == MG_HOLD);
	limits.max_windows = 0;
	space = (struct mg_space){ 0 };
	assert(decide(&limits, &space, HERE, 1).why == MG_WHY_WINDOWS);
	limits.max_holds = 0;
	space = (struct mg_space){ 0 };
	assert(decide(&limits, &space, HERE, 1).why == MG_WHY_HOLDS);
	limits.observe = true;
	space = (struct mg_space){ 0 };
	assert(decide(&limits, &space, HERE, 1).start && space.state == MG_GIVEN_UP);
	assert(!decide(&limits, &space, HERE, 1).start);
	limits.enabled = false;
	space = (struct mg_space){ 0 };
	assert(decide(&limits, &space, HERE, 1).why == MG_WHY_OFF && space.state == MG_IDLE);
}

/*
 * Every distinct page of a round is held, and the round counts once; so it does on each of two GPUs
 * whose rounds are interleaved.
 */
static void rounds(void)
{
	struct mg_limits limits = usual;
	struct mg_space space = { 0 };
	u32 pages = 3000;

	for (u32 round = 1; round <= limits.max_holds; round++)
		for (u32 page = 0; page < pages; page++) {
			assert(decide(&limits, &space, HERE + 4096ull * page, round).verdict);
			assert(space.holds == round);
		}
	assert(decide(&limits, &space, HERE, limits.max_holds + 1).why == MG_WHY_HOLDS);
	space = (struct mg_space){ 0 };
	for (u32 page = 0; page < pages; page++)
		for (u32 gpu = 1; gpu <= 2; gpu++)
			mg_decide(&limits, &space, 1, gpu, gpu * HERE + 4096ull * page, 1);
	assert(space.holds == 1 && space.wanting > 1);
}

/*
 * Faults under way are held a while; a mapping that does not help is noticed by their number or
 * age.
 */
static void repeats(void)
{
	struct mg_limits limits = usual;
	struct mg_space space = { 0 };
	u32 held = 0;

	limits.max_holds = 100000;
	decide(&limits, &space, HERE, 1);
	sink(&limits, &space, 2);
	while (decide(&limits, &space, HERE + 8, 3).verdict == MG_HOLD)
		held++;
	/* The first of them is above the fault that was sunk, so it belongs to the same round. */
	assert(held == MG_REPEATS + 1 && space.state == MG_GIVEN_UP && space.windows == 1);
	space = (struct mg_space){ 0 };
	decide(&limits, &space, HERE, 1);
	sink(&limits, &space, 2);
	assert(decide(&limits, &space, HERE, 201).verdict == MG_HOLD);
	assert(decide(&limits, &space, HERE, 202).why == MG_WHY_REPEATS);
}

/* An array of so many pages that is run over, from wherever it begins. */
static void few_windows(void)
{
	struct mg_limits limits = usual;

	limits.max_windows = MG_WINDOWS;
	for (u32 at = 0; at < 1000; at++) {
		u64 base = HERE + ((u64)rand() << 12), first = 0, pages = 3000;
		struct mg_space space = { 0 };
		u32 round = 0;

		for (; first < pages; round++) {
			u64 next = pages;

			for (u64 page = first; page < pages; page++)
				if (!mg_sunk_at(&space, base + 4096 * page)) {
					assert(decide(&limits, &space, base + 4096 * page, 1)
						       .verdict);
					next = next == pages ? page : next;
				}
			sink(&limits, &space, 1);
			first = next;
		}
		assert(space.windows <= 8 && round <= 4);
	}
}

static void windows(void)
{
	struct mg_space space = { 0 };
	struct mg_window window = mg_window_around(&space, 0x7f0000123456ull, 2ull << 20);

	assert(window.base == 0x7f0000000000ull && window.length == 2ull << 20);
	window = mg_window_around(&space, 0x20000, 2ull << 20);
	assert(window.base == MG_SMALLEST && window.length == (2ull << 20) - MG_SMALLEST);
	assert(mg_window_around(&space, 0x10, MG_SMALLEST).length == 0);
	assert(mg_first_window(&usual, &space, HERE) == 2ull << 20);
	space.wanted[space.wanting++] = HERE + (5 << 20);
	assert(mg_first_window(&usual, &space, HERE) == 8ull << 20);
	space.wanted[space.wanting++] = HERE + MG_LARGEST; /* too far to be covered as well */
	assert(mg_first_window(&usual, &space, HERE) == 8ull << 20);
	space = (struct mg_space){ .windows = 1 };
	assert(mg_first_window(&usual, &space, HERE) == 8ull << 20);
	space.windows = 63;
	assert(mg_first_window(&usual, &space, HERE) == MG_LARGEST);
	assert(!mg_sunk_at(&space, 0));
	/* Clear of what is there, whatever that is. */
	for (int i = 0; i < 100000; i++) {
		u64 va = ((u64)rand() << 33 ^ (u64)rand()) >> (rand() % 60);
		u64 bytes = MG_SMALLEST << (rand() % 15);

		if (space.windows >= MG_WINDOWS || rand() % 10 == 0)
			space = (struct mg_space){ 0 };
		if (mg_sunk_at(&space, va))
			continue;
		window = mg_window_around(&space, va, bytes);
		assert(window.length <= bytes && window.base % MG_SMALLEST == 0 && window.base);
		assert(mg_inside(window, va) || va < MG_SMALLEST);
		for (u32 n = 0; n < space.windows; n++) {
			const struct mg_window *sunk = &space.sunk[n].window;

			assert(!window.length || window.base + window.length <= sunk->base ||
			       sunk->base + sunk->length <= window.base);
		}
		space.sunk[space.windows++].window = window;
	}
}

static const u64 second = 1000000000;

static u32 grants(struct mg_rates *rates, u32 uid, u32 per_minute, u64 now)
{
	u32 count = 0;

	while (count < 1000 && mg_rate_take(rates, uid, per_minute, now))
		count++;
	return count;
}

static void rates_of_users(void)
{
	struct mg_rates rates = { 0 };
	u64 now = 1000 * second;

	assert(!mg_rate_take(&rates, 1000, 0, now));
	assert(grants(&rates, 1000, 4, now) == 4);
	assert(grants(&rates, 1001, 4, now) == 4); /* not paid by the first */
	assert(grants(&rates, 1000, 4, now + 15 * second - 1) == 0);
	assert(grants(&rates, 1000, 4, now + 15 * second) == 1);
	assert(grants(&rates, 1000, 4, now + 45 * second) == 2);
	assert(grants(&rates, 1000, 4, now + 1000 * second) == 4);
	/* A clock that ran backwards: a minute later it is full, whatever the limit is then. */
	assert(grants(&rates, 1000, 4, now) == 0);
	assert(grants(&rates, 1000, 2, now + 60 * second) == 2);
	/* The table is full of users with empty budgets: the next one has a budget all the same. */
	for (u32 uid = 0; uid < 3 * MG_RATE_USERS; uid++)
		assert(grants(&rates, 2000 + uid, 3, now + 2000 * second) == 3);
	/* Whose entry went first was the one that is full soonest. */
	rates = (struct mg_rates){ 0 };
	for (u32 uid = 0; uid < MG_RATE_USERS; uid++)
		grants(&rates, uid, uid == 7 ? 60 : 3, now - (uid == 7 ? 30 : 0) * second);
	assert(grants(&rates, 5000, 3, now) == 3);
	assert(grants(&rates, 8, 3, now) == 0 && grants(&rates, 7, 60, now) == 60);
}

#define FUZZ_USERS (MG_RATE_USERS + 8)

/*
 * Against an account of every grant: among no more users than the table has, nobody gets more than
 * the limit at once and its share of the time after, and somebody who was quiet for a minute gets
 * the next one whatever the others do, also when there are too many of them for the table.
 */
static void rates_promise(unsigned int seed)
{
	struct mg_rates rates = { 0 };
	u64 now = 5 * second, granted[FUZZ_USERS][200];
	u32 count[FUZZ_USERS] = { 0 }, users, per_minute;

	srand(seed);
	users = rand() % 2 ? 3 : rand() % 2 ? MG_RATE_USERS : FUZZ_USERS;
	per_minute = 1 + (u32)(rand() % 10);
	for (int turn = 0; turn < 1500; turn++) {
		u32 uid = (u32)(rand() % 4 ? rand() % 2 : rand()) % users;
		u64 *mine = granted[uid];
		u32 had = count[uid];
		bool got;

		now += (u64)rand() % (rand() % 50 ? second / 4 : 70 * second);
		got = mg_rate_take(&rates, uid, per_minute, now);
		if (!had || mine[had - 1] + MG_MINUTE_NS <= now)
			assert(got);
		if (!got || had == 200)
			continue;
		mine[had] = now;
		count[uid]++;
		for (u32 i = 0; users <= MG_RATE_USERS && i <= had; i++)
			assert(had - i + 1 <=
				       per_minute + 1 +
					       (now - mine[i]) / (MG_MINUTE_NS / per_minute) &&
			       (mine[i] != now || had - i + 1 <= per_minute));
	}
}

/*
 * After deadline or budget only PASS, whatever the order of faults, of the worker's doings and
 * time. The account here: time from a hold to the next one, or to its being sunk, was time of
 * holding.
 */
static void promise(unsigned int seed)
{
	static const struct mg_window nothing;
	struct mg_limits limits = usual;
	struct mg_space space = { 0 };
	u64 now = 1, newest = 0, spent = 0, va;
	u32 rounds_held = 0;
	bool over = false;
	enum mg_why why;

	srand(seed);
	limits.max_holds = (u32)(rand() % 20);
	limits.max_windows = (u32)(rand() % 4);
	limits.null_page = rand() % 2;
	for (int turn = 0; turn < 200; turn++) {
		struct mg_answer answer;
		bool working = space.state == MG_SINKING;

		now += (u64)(rand() % 60);
		limits.enabled = rand() % 20;
		if (rand() % 5 == 0) {
			if (mg_next(&limits, &space, &va, &why) != MG_NEXT_SINK) {
				over = over || space.state == MG_GIVEN_UP;
				continue;
			}
			mg_settle(&space,
				  rand() % 3 ? mg_window_around(&space, va, 2ull << 20) : nothing,
				  now);
			spent += now - newest;
			newest = now;
			over = over || space.state == MG_GIVEN_UP;
			continue;
		}
		va = (u64)(rand() % 8) << (rand() % 2 ? 14 : 30);
		answer = mg_decide(&limits, &space, (u32)(rand() % 6), (u32)(rand() % 2), va, now);
		if (answer.verdict == MG_PASS) {
			assert(answer.why != MG_WHY_HELD);
			over = over || space.state == MG_GIVEN_UP;
			continue;
		}
		assert(!over && limits.enabled);
		assert(!(answer.start && working));
		if (working)
			spent += now - newest;
		newest = now;
		rounds_held = space.holds;
		assert(spent <= limits.deadline_ns);
		assert(rounds_held <= limits.max_holds);
		assert(space.windows + answer.start <= limits.max_windows);
	}
	assert(space.windows <= limits.max_windows);
}

int main(void)
{
	unsigned int seeds = 20000;

	one_life();
	what_passes();
	rounds();
	repeats();
	few_windows();
	windows();
	for (unsigned int seed = 0; seed < seeds; seed++)
		promise(seed);
	rates_of_users();
	for (unsigned int seed = 0; seed < seeds / 10; seed++)
		rates_promise(seed);
	printf("policy: %u random sequences kept the promise\n", seeds);
	return 0;
}
