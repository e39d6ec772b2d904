// SPDX-License-Identifier: GPL-2.0-only
/* Hold, sink or pass: what becomes of one fault, and of many. */
#include "stage.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void off_by_default(void)
{
	struct cast cast = start_cast(true);
	struct shim_fault seen = fault(&cast, FAR, ADDRESS);

	CHECK(seen.cancels == 1 && seen.replays == 1 && !seen.served);
	CHECK(alive(cast.client));
	end_cast(&cast);
	SET("enabled", 1);
}

static void held_sunk_ended(void)
{
	int events = listen_events();
	struct mps_guard_event event;
	struct shim_fault seen;
	struct cast cast;

	SET("kill_ms", 40);
	cast = start_cast(true);
	seen = fault(&cast, FAR + 0x123458, ADDRESS);
	CHECK(seen.cancels != 1); /* the answer may be lost with the client: then 0xffffffff */
	event = wait_event(events, MPS_GUARD_HELD, 2000);
	CHECK(event.address == FAR + 0x123458 && event.reason == ADDRESS);
	CHECK(event.version == MPS_GUARD_VERSION && event.size == sizeof(event) && event.gpu == 1);
	event = wait_event(events, MPS_GUARD_SUNK, 2000);
	CHECK(event.pid == cast.client && event.holders == 2 && event.windows == 1);
	CHECK(!strcmp(event.comm, "client"));
	CHECK(wait_event(events, MPS_GUARD_KILLED, 2000).pid == cast.client);
	CHECK(ended_by(cast.client, SIGKILL));
	CHECK(alive(cast.server));
	CHECK(wait_event(events, MPS_GUARD_RELEASED, 2000).kind);
	cast.client = 0;
	end_cast(&cast);
	SET("kill_ms", 0);
	CHECK(all_spaces_gone());
	close(events);
}

static void permissions_are_sunk_too(void)
{
	struct cast cast = start_cast(true);

	CHECK(fault(&cast, FAR, PERMISSIONS).served == 1);
	end_cast(&cast);
}

static void other_reasons_pass(void)
{
	uint32_t reasons[] = { FAULT_TYPE, MEMORY, INTERNAL };

	for (size_t i = 0; i < sizeof(reasons) / sizeof(*reasons); i++) {
		struct cast cast = start_cast(true);
		struct shim_fault seen = fault(&cast, FAR, reasons[i]);

		CHECK(seen.cancels == 1 && seen.replays == 1);
		end_cast(&cast);
	}
}

static void copy_engine_is_not_ours(void)
{
	struct order order = { .verb = FAULT,
			       .fault = { .va = FAR, .reason = ADDRESS, .copy = 1 } };
	int events = listen_events();
	struct cast cast = start_cast(true);

	CHECK(ask(&cast, order).fault.cancels == 1);
	CHECK(wait_event(events, MPS_GUARD_HELD, 50).kind == 0);
	CHECK(fault(&cast, FAR, ADDRESS).served == 1);
	end_cast(&cast);
	close(events);
}

static void scope_is_mps_clients(void)
{
	int events = listen_events();
	struct cast cast = start_cast(false);

	CHECK(fault(&cast, FAR, ADDRESS).cancels == 1);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 2000).why == SCOPE);
	end_cast(&cast);
	SET("scope", 1);
	cast = start_cast(false);
	CHECK(tell_about("pid", (unsigned long long)cast.client) == 0);
	CHECK(fault(&cast, FAR, ADDRESS).served == 1);
	end_cast(&cast);
	cast = start_cast(true);
	CHECK(fault(&cast, FAR, ADDRESS).cancels == 1);
	end_cast(&cast);
	SET("scope", 2);
	cast = start_cast(false);
	CHECK(fault(&cast, FAR, ADDRESS).served == 1);
	end_cast(&cast);
	SET("scope", 0);
	CHECK(all_spaces_gone());
	close(events);
}

static void window_halves_beside_a_neighbour(void)
{
	struct order order = { .verb = RANGE, .range = { FAR, 1 << 20 } };
	struct cast cast = start_cast(true);
	struct shim_stats stats;

	ask(&cast, order);
	CHECK(fault(&cast, FAR + (1 << 20) + 8, ADDRESS).served == 1);
	stats = stats_of(&cast);
	CHECK(stats.sparse_bytes == 1 << 20 && stats.lowest_sparse == FAR + (1 << 20));
	end_cast(&cast);
}

static void no_room_below_64k_passes(void)
{
	struct order small = { .verb = RANGE, .range = { FAR, 4096 } };
	struct order full = { .verb = RANGE, .range = { FAR, 2 << 20 } };
	int events = listen_events();
	struct cast cast = start_cast(true);

	ask(&cast, small);
	CHECK(fault(&cast, FAR + 4096, ADDRESS).cancels == 1);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 2000).why == NO_ROOM);
	CHECK(stats_of(&cast).sparse_bytes == 0);
	CHECK(alive(cast.client));
	end_cast(&cast);
	cast = start_cast(true);
	ask(&cast, full);
	CHECK(fault(&cast, FAR + 8, ADDRESS).cancels == 1);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	close(events);
}

static void storm_ends_in_the_budget(void)
{
	struct cast cast;
	int served = 0, at = 0;

	SET("max_windows", 5);
	cast = start_cast(true);
	for (; at < 20; at++) {
		struct shim_fault seen = fault(&cast, FAR + ((uint64_t)at << 34), ADDRESS);

		served += seen.served == 1;
		if (seen.cancels == 1)
			break;
	}
	CHECK(served == 5 && at == 5);
	CHECK(stats_of(&cast).sparse_bytes == (2ull + 8 + 32 + 128 + 512) << 20);
	end_cast(&cast);
	SET("max_windows", 64);
	CHECK(all_spaces_gone());
}

#define CLIENTS 8

static void storms_of_several_clients(void)
{
	struct cast cast[CLIENTS];
	struct order order = { .verb = FAULT, .fault = { .reason = ADDRESS } };
	unsigned int cancelled = 0;
	unsigned int ended = 0;

	SET("kill_ms", 40);
	for (int i = 0; i < CLIENTS; i++)
		cast[i] = start_cast(true);
	for (int round = 0; round < 4; round++)
		for (int i = 0; i < CLIENTS; i++) {
			order.fault.va = FAR + ((uint64_t)round << 36);
			give(&cast[i], order);
		}
	for (int i = 0; i < CLIENTS; i++) {
		for (int round = 0; round < 4; round++)
			cancelled += answer_of(&cast[i]).fault.cancels == 1;
		ended += ended_by(cast[i].client, SIGKILL);
		CHECK(alive(cast[i].server));
		cast[i].client = 0;
		end_cast(&cast[i]);
	}
	SET("kill_ms", 0);
	CHECK(cancelled == 0 && ended == CLIENTS);
	CHECK(all_spaces_gone());
}

static void two_gpus(void)
{
	struct order has = { .verb = REGISTER, .fault = { .gpu = 1 } };
	struct order both = { .verb = BOTH_GPUS,
			      .fault = { .va = FAR, .reason = ADDRESS, .gpu = 0 },
			      .second = { .va = FAR + (1ull << 40), .reason = ADDRESS, .gpu = 1 } };
	int events = listen_events();
	struct cast cast;
	struct order seen;

	/*
	 * The second GPU has not been taught: what is mapped on the first does not help, so it
	 * passes.
	 */
	cast = start_cast(true);
	ask(&cast, has);
	both.fault = both.second;
	seen = ask(&cast, both);
	CHECK(seen.fault.cancels == 1 && seen.second.cancels == 1);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 2000).why == REPEATS);
	end_cast(&cast);

	both.fault = (struct shim_fault){ .va = FAR, .reason = ADDRESS };
	CHECK(tell("gpu 5b5a5a5a000102030405060708090a0b") == 0);
	cast = start_cast(true);
	ask(&cast, has);
	seen = ask(&cast, both);
	CHECK(seen.fault.served == 1 && seen.second.served == 1);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	close(events);
}

static void deadline_passes(void)
{
	struct shim_fault seen;
	struct cast cast;

	SHIM("slow_ms", 200);
	SET("deadline_ms", 20);
	cast = start_cast(true);
	seen = fault(&cast, FAR, ADDRESS);
	CHECK(seen.cancels == 1 && seen.replays > 1);
	CHECK(alive(cast.client));
	SHIM("slow_ms", 0);
	SET("deadline_ms", DEADLINE_MS);
	end_cast(&cast);
	CHECK(all_spaces_gone());
}

static void replays_are_bounded(void)
{
	int events = listen_events();
	struct shim_fault seen;
	struct cast cast;

	SHIM("slow_ms", 100);
	SET("max_holds", 10);
	SET("deadline_ms", 5000);
	cast = start_cast(true);
	seen = fault(&cast, FAR, ADDRESS);
	CHECK(seen.cancels == 1 && seen.replays == 11);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 2000).why == HOLDS);
	SHIM("slow_ms", 0);
	SET("max_holds", 4096);
	SET("deadline_ms", DEADLINE_MS);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	close(events);
}

/* Several at once: the trick that moves a mapping to 0 works for one thread at a time. */
static void null_page(void)
{
	struct order order = { .verb = FAULT, .fault = { .va = 8, .reason = ADDRESS } };
	int events = listen_events();
	struct cast cast[CLIENTS];

	cast[0] = start_cast(true);
	CHECK(ask(&cast[0], order).fault.cancels == 1);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 2000).why == NULL_PAGE);
	end_cast(&cast[0]);
	close(events);
	CHECK(rmmod("mps_guard") == 0);
	load_guard("null_page=1 enabled=1");
	SHIM("slow_map_ms", 5);
	for (int i = 0; i < CLIENTS; i++) {
		cast[i] = start_cast(true);
		give(&cast[i], order);
	}
	for (int i = 0; i < CLIENTS; i++) {
		CHECK(answer_of(&cast[i]).fault.served == 1);
		CHECK(stats_of(&cast[i]).lowest_sparse == 0);
		end_cast(&cast[i]);
	}
	SHIM("slow_map_ms", 0);
	CHECK(all_spaces_gone());
	CHECK(rmmod("mps_guard") == 0);
	load_guard("enabled=1");
}

static void observe_only_records(void)
{
	int events = listen_events();
	struct mps_guard_event event;
	struct cast cast;

	SET("observe", 1);
	cast = start_cast(true);
	CHECK(fault(&cast, FAR, ADDRESS).cancels == 1);
	event = wait_event(events, MPS_GUARD_PASSED, 2000);
	CHECK(event.why == OBSERVE && event.pid == cast.client && event.holders == 2);
	CHECK(stats_of(&cast).sparse_bytes == 0);
	CHECK(alive(cast.client));
	end_cast(&cast);
	SET("observe", 0);
	close(events);
}

/*
 * Two incidents a user: those out of scope cost none, another user has a budget of its own, and so
 * has the first one's client that was let in.
 */
static void rate_is_each_users_own(void)
{
	struct mps_guard_event event;
	int events = listen_events();
	struct cast cast[2];

	SET("rate", 2);
	cast[0] = start_cast_of(1000, false);
	CHECK(fault(&cast[0], FAR, ADDRESS).cancels == 1);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 2000).why == SCOPE);
	end_cast(&cast[0]);
	for (int i = 0; i < 2; i++) {
		cast[i] = start_cast_of(1000, true);
		CHECK(fault(&cast[i], FAR, ADDRESS).served == 1);
	}
	for (int i = 0; i < 3; i++) {
		struct cast late = start_cast_of(1000, true);

		CHECK(fault(&late, FAR, ADDRESS).cancels == 1);
		event = wait_event(events, MPS_GUARD_PASSED, 2000);
		CHECK(event.why == RATE && event.uid == 1000 && event.pid == late.client);
		CHECK(stats_of(&late).sparse_bytes == 0 && alive(late.client));
		end_cast(&late);
	}
	for (int i = 0; i < 2; i++) {
		CHECK(fault(&cast[i], FAR + (1ull << 40), ADDRESS).served == 1);
		end_cast(&cast[i]);
	}
	cast[0] = start_cast_of(1001, true);
	CHECK(fault(&cast[0], FAR, ADDRESS).served == 1);
	end_cast(&cast[0]);
	SET("rate", 100000);
	CHECK(all_spaces_gone());
	close(events);
}

static void off_switch(void)
{
	struct cast cast;

	SET("enabled", 0);
	cast = start_cast(true);
	CHECK(fault(&cast, FAR, ADDRESS).cancels == 1);
	end_cast(&cast);
	SET("enabled", 1);
}

const struct test fault_tests[] = {
	TEST(off_by_default),
	TEST(held_sunk_ended),
	TEST(permissions_are_sunk_too),
	TEST(other_reasons_pass),
	TEST(copy_engine_is_not_ours),
	TEST(scope_is_mps_clients),
	TEST(window_halves_beside_a_neighbour),
	TEST(no_room_below_64k_passes),
	TEST(storm_ends_in_the_budget),
	TEST(storms_of_several_clients),
	TEST(two_gpus),
	TEST(deadline_passes),
	TEST(replays_are_bounded),
	TEST(null_page),
	TEST(observe_only_records),
	TEST(rate_is_each_users_own),
	TEST(off_switch),
	{ 0 },
};
