/* SPDX-License-Identifier: GPL-2.0-only */
/* The policy in user space: a table of cases, then random sequences against its one promise. Built with ASan and UBSan. */
#include "../mg_policy.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static const struct mg_limits usual = {
	.enabled = true, .deadline_ns = 200, .max_holds = 8, .max_windows = 2, .window_bytes = 2ull << 20
};

static void cases(void)
{
	struct mg_space space = { 0 };
	struct mg_limits limits = usual;
	struct mg_answer answer = mg_decide(&limits, &space, MG_REASON_INVALID_ADDRESS, 1ull << 40, 1000);

	assert(answer.verdict == MG_HOLD && answer.start && space.state == MG_SINKING);
	answer = mg_decide(&limits, &space, MG_REASON_INVALID_ADDRESS, 1ull << 40, 1100);
	assert(answer.verdict == MG_HOLD && !answer.start);
	mg_settle(&space, true);
	assert(space.state == MG_IDLE && space.windows == 1);
	answer = mg_decide(&limits, &space, MG_REASON_INVALID_PERMISSIONS, 1ull << 41, 5000);
	assert(answer.verdict == MG_HOLD && answer.start);
	answer = mg_decide(&limits, &space, MG_REASON_INVALID_ADDRESS, 1ull << 41, 5201);
	assert(answer.verdict == MG_PASS && answer.why == MG_WHY_DEADLINE);
	mg_settle(&space, true);
	assert(space.state == MG_GIVEN_UP && space.windows == 1);
	answer = mg_decide(&limits, &space, MG_REASON_INVALID_ADDRESS, 1ull << 41, 9999);
	assert(answer.verdict == MG_PASS && answer.why == MG_WHY_GIVEN_UP);

	space = (struct mg_space){ 0 };
	assert(mg_decide(&limits, &space, MG_REASON_OUT_OF_MEMORY, 1ull << 40, 1).why == MG_WHY_REASON);
	space = (struct mg_space){ 0 };
	assert(mg_decide(&limits, &space, MG_REASON_INVALID_ADDRESS, 8, 1).why == MG_WHY_NULL_PAGE);
	limits.null_page = true;
	space = (struct mg_space){ 0 };
	assert(mg_decide(&limits, &space, MG_REASON_INVALID_ADDRESS, 8, 1).verdict == MG_HOLD);
	limits.observe = true;
	space = (struct mg_space){ 0 };
	assert(mg_decide(&limits, &space, MG_REASON_INVALID_ADDRESS, 1ull << 40, 1).why == MG_WHY_OBSERVE);
	limits.enabled = false;
	assert(mg_decide(&limits, &space, MG_REASON_INVALID_ADDRESS, 1ull << 40, 1).why == MG_WHY_OFF);
}

static void windows(void)
{
	struct mg_window window = mg_window_around(0x7f0000123456ull, 2ull << 20);

	assert(window.base == 0x7f0000000000ull && window.length == 2ull << 20);
	window = mg_window_around(0x20000, 2ull << 20);
	assert(window.base == MG_SMALLEST && window.length == (2ull << 20) - MG_SMALLEST);
	assert(mg_window_around(0x10, MG_SMALLEST).length == 0);
	assert(mg_first_window(&usual, 0) == 2ull << 20);
	assert(mg_first_window(&usual, 1) == 8ull << 20);
	assert(mg_first_window(&usual, 63) == MG_LARGEST);
}

/* After deadline or budget only PASS, whatever the order of faults, verdicts of the worker and time. */
static void promise(unsigned int seed)
{
	struct mg_limits limits = usual;
	struct mg_space space = { 0 };
	u64 now = 1, oldest = 0;
	u32 held = 0;
	bool waiting = false, over = false;

	srand(seed);
	limits.max_holds = (u32)(rand() % 20);
	limits.max_windows = (u32)(rand() % 4);
	limits.null_page = rand() % 2;
	for (int turn = 0; turn < 200; turn++) {
		now += (u64)(rand() % 60);
		if (rand() % 5 == 0) {
			mg_settle(&space, rand() % 3 != 0);
			waiting = space.state == MG_SINKING;
			continue;
		}
		struct mg_answer answer = mg_decide(&limits, &space, (u32)(rand() % 6), (u64)rand() << 12, now);

		if (answer.verdict == MG_PASS) {
			over = over || space.state == MG_GIVEN_UP;
			continue;
		}
		assert(!over);
		assert(answer.start != waiting);
		if (answer.start)
			oldest = now;
		waiting = true;
		held++;
		assert(now - oldest <= limits.deadline_ns);
		assert(held <= limits.max_holds);
		assert(space.windows < limits.max_windows || space.state == MG_SINKING);
	}
	assert(space.windows <= limits.max_windows);
}

int main(void)
{
	unsigned int seeds = 20000;

	cases();
	windows();
	for (unsigned int seed = 0; seed < seeds; seed++)
		promise(seed);
	printf("policy: %u random sequences kept the promise\n", seeds);
	return 0;
}
