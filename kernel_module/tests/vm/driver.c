// SPDX-License-Identifier: GPL-2.0-only
/*
 * What came to light beside NVIDIA's own module: each is a way in which the driver is not as simple
 * as a stand-in would like it.
 */
#include "stage.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const struct order far_fault = { .verb = FAULT, .fault = { .va = FAR, .reason = ADDRESS } };

/* What has been told of an incident until it was over: the kinds of its records, and the last. */
struct told {
	unsigned int count[MPS_GUARD_RELEASED + 1];
	struct mps_guard_event last;
};

static struct told told_until_now(int events)
{
	struct told told = { 0 };
	struct mps_guard_event event;

	while (read(events, &event, sizeof(event)) == sizeof(event)) {
		told.count[event.kind]++;
		told.last = event;
	}
	return told;
}

/*
 * Each address space faults once more while it is torn down, when nobody holds it; the next one has
 * the same pointer.
 */
static void a_thousand_spaces_at_one_pointer(void)
{
	unsigned long long places[10], here;
	int seen = 0;

	SHIM("reuse", 1);
	SHIM("late", 1);
	for (int i = 0; i < 1000; i++) {
		struct cast cast;
		int at = 0;

		if (i % 50) {
			close(open("/dev/shim_uvm", O_RDWR | O_CLOEXEC));
			continue;
		}
		cast = start_cast(true);
		here = stats_of(&cast).address;
		while (at < seen && places[at] != here)
			at++;
		if (at == seen && seen < 10)
			places[seen++] = here;
		CHECK(fault(&cast, FAR, ADDRESS).served == 1);
		end_cast(&cast);
		CHECK(all_spaces_gone());
	}
	CHECK(seen < 5); /* its own, and those of whoever counted meanwhile */
	SHIM("late", 0);
	SHIM("reuse", 0);
}

static void late_fault_has_no_owner(void)
{
	int events = listen_events();

	SHIM("late", 1);
	close(open("/dev/shim_uvm", O_RDWR | O_CLOEXEC));
	SHIM("late", 0);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 2000).why == NO_OWNER);
	close(events);
}

static void one_verdict_an_incident(void)
{
	int events = listen_events();
	struct told told;
	struct cast cast;

	/* The mapping succeeds after the fault has passed. */
	SHIM("slow_ms", 100);
	SET("max_holds", 10);
	cast = start_cast(true);
	CHECK(fault(&cast, FAR, ADDRESS).cancels == 1);
	CHECK(fault(&cast, FAR + (1ull << 40), ADDRESS).cancels == 1);
	SHIM("slow_ms", 0);
	SET("max_holds", 4096);
	while (shown("clients"))
		usleep(1000);
	told = told_until_now(events);
	CHECK(told.count[MPS_GUARD_HELD] == 1 && told.count[MPS_GUARD_PASSED] == 1);
	CHECK(told.count[MPS_GUARD_SUNK] == 0 && told.last.why == HOLDS);
	end_cast(&cast);

	/* Many faults, all sunk. */
	cast = start_cast(true);
	for (uint64_t i = 0; i < 4; i++)
		CHECK(fault(&cast, FAR + (i << 36), ADDRESS).served == 1);
	end_cast(&cast);
	CHECK(wait_event(events, MPS_GUARD_RELEASED, 3000).windows == 4);
	CHECK(told_until_now(events).count[MPS_GUARD_PASSED] == 0);

	/* Sunk first, and then too much: that neighbours are hit after all is told, once. */
	SET("max_windows", 2);
	cast = start_cast(true);
	for (uint64_t i = 0; i < 4; i++)
		CHECK(fault(&cast, FAR + (i << 36), ADDRESS).served == (i < 2));
	end_cast(&cast);
	SET("max_windows", 64);
	CHECK(all_spaces_gone());
	told = told_until_now(events);
	CHECK(told.count[MPS_GUARD_HELD] == 1 && told.count[MPS_GUARD_SUNK] == 1);
	CHECK(told.count[MPS_GUARD_PASSED] == 1 && told.count[MPS_GUARD_RELEASED] == 1);
	close(events);
}

static void calls_are_as_the_drivers_own(void)
{
	struct cast cast = start_cast(true);

	CHECK(fault(&cast, FAR, ADDRESS).served == 1);
	end_cast(&cast);
	CHECK(all_stats().bare_calls == 0);
	CHECK(all_spaces_gone());
}

static void power(int uvm, int asleep)
{
	CHECK(ioctl(uvm, SHIM_POWER, asleep) == 0);
}

static void sleep_waits_for_the_worker(void)
{
	int events = listen_events(), uvm = open("/dev/shim_uvm", O_RDWR | O_CLOEXEC);
	struct order two = {
		.verb = FAULT,
		.fault = { .va = FAR, .reason = ADDRESS, .pages = 2, .stride = 1ull << 40 }
	};
	struct cast cast;

	SHIM("slow_map_ms", 200);
	cast = start_cast(true);
	give(&cast, far_fault);
	CHECK(wait_event(events, MPS_GUARD_HELD, 2000).kind);
	power(uvm, 1);
	power(uvm, 0);
	CHECK(answer_of(&cast).fault.served == 1);
	end_cast(&cast);

	/* The first window is waited for, the second is not begun, so the client passes. */
	cast = start_cast(true);
	give(&cast, two);
	CHECK(wait_event(events, MPS_GUARD_HELD, 2000).kind);
	power(uvm, 1);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 2000).why == ASLEEP);
	power(uvm, 0);
	CHECK(answer_of(&cast).fault.cancels == 1);
	end_cast(&cast);
	SHIM("slow_map_ms", 0);
	CHECK(all_stats().bare_calls == 0);
	close(uvm);
	CHECK(all_spaces_gone());
	close(events);
}

/* The range that stands in for the null page is not under the next pages, nor ever replaced. */
static void null_page_stays_sunk(void)
{
	int events;
	struct cast cast;

	CHECK(rmmod("mps_guard") == 0);
	load_guard("null_page=1 enabled=1");
	events = listen_events();
	cast = start_cast(true);
	CHECK(fault(&cast, 8, ADDRESS).served == 1);
	CHECK(fault(&cast, 65536 + 8, ADDRESS).served == 1);
	CHECK(stats_of(&cast).lowest_sparse == 0);
	CHECK(fault(&cast, 16, ADDRESS).replays == 0);
	CHECK(fault(&cast, 1ull << 46, ADDRESS).cancels == 1);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 2000).why == NO_ROOM);
	CHECK(stats_of(&cast).lowest_sparse == 0);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	close(events);
	CHECK(rmmod("mps_guard") == 0);
	load_guard("enabled=1");
}

/* A write to memory that is read-only in pages of 2 MiB: smaller ones cannot be split off. */
static void large_pages_are_sunk_whole(void)
{
	struct order external = { .verb = EXTERNAL, .range = { FAR, 8 << 20, 0 } };
	struct order map = { .verb = MAP, .range = { FAR, 8 << 20, 2 << 20 } };
	struct cast cast = start_cast(true);

	ask(&cast, external);
	ask(&cast, map);
	CHECK(fault(&cast, FAR + (3 << 20), PERMISSIONS).served == 1);
	CHECK(stats_of(&cast).sparse_bytes == 2 << 20);
	CHECK(stats_of(&cast).lowest_sparse == FAR + (2 << 20));
	end_cast(&cast);
	CHECK(all_spaces_gone());
}

/* Who traces faults hears of it once, not of every replay. */
static void tools_hear_of_it_once(void)
{
	struct shim_fault seen;
	struct cast cast = start_cast(true);

	SHIM("slow_ms", 50);
	seen = fault(&cast, FAR, ADDRESS);
	SHIM("slow_ms", 0);
	CHECK(seen.served == 1 && seen.replays > 3 && seen.events == 1);
	end_cast(&cast);
	CHECK(all_spaces_gone());
}

/* Each GPU's own cancel function is seen, also while nothing is held. */
static void counts_what_the_hooks_saw(void)
{
	struct order second = { .verb = FAULT,
				.fault = { .va = FAR, .reason = ADDRESS, .gpu = 1, .pages = 5 } };
	int faults = shown("faults"), cancels = shown("cancels_seen");
	struct cast cast = start_cast(true);

	SET("enabled", 0);
	CHECK(fault(&cast, FAR, ADDRESS).cancels == 1);
	CHECK(ask(&cast, second).fault.cancels == 1);
	SET("enabled", 1);
	CHECK(shown("faults") == faults + 6 && shown("cancels_seen") == cancels + 6);
	CHECK(shown("strays") == 0);
	faults = shown("isolated");
	CHECK(storm(&cast, FAR, 4, 1ull << 36).served == 1);
	CHECK(fault(&cast, FAR + (1ull << 40), ADDRESS).served == 1);
	CHECK(shown("isolated") == faults + 1);
	end_cast(&cast);
	CHECK(all_spaces_gone());
}

static void says_which_cancels_it_covers(void)
{
	char text[64] = "";
	int fd = open("/sys/module/mps_guard/parameters/cancels", O_RDONLY | O_CLOEXEC);

	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	CHECK(!strcmp(text, "volta hopper\n"));
	close(fd);
}

const struct test driver_tests[] = {
	TEST(a_thousand_spaces_at_one_pointer),
	TEST(late_fault_has_no_owner),
	TEST(one_verdict_an_incident),
	TEST(calls_are_as_the_drivers_own),
	TEST(sleep_waits_for_the_worker),
	TEST(null_page_stays_sunk),
	TEST(large_pages_are_sunk_whole),
	TEST(tools_hear_of_it_once),
	TEST(counts_what_the_hooks_saw),
	TEST(says_which_cancels_it_covers),
	{ 0 },
};
