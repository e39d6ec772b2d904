// SPDX-License-Identifier: GPL-2.0-only
/*
 * Processes that fork, exec, exit and are ended around a fault, and address spaces that come and
 * go.
 */
#include "stage.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

static const struct order far_fault = { .verb = FAULT, .fault = { .va = FAR, .reason = ADDRESS } };

static void acknowledged_is_not_killed(void)
{
	int events = listen_events();
	struct mps_guard_event event;
	struct cast cast;

	SET("kill_ms", 300);
	SET("ack_ms", 700);
	cast = start_cast(true);
	give(&cast, far_fault);
	event = wait_event(events, MPS_GUARD_SUNK, 2000);
	CHECK(tell_about("ack", event.incident) == 0);
	CHECK(answer_of(&cast).fault.served == 1);
	CHECK(wait_event(events, MPS_GUARD_KILLED, 400).kind == 0);
	CHECK(alive(cast.client));
	/* An agent that acknowledged and then died: the module has the last word. */
	CHECK(wait_event(events, MPS_GUARD_KILLED, 2000).incident == event.incident);
	CHECK(ended_by(cast.client, SIGKILL));
	CHECK(alive(cast.server));
	cast.client = 0;
	end_cast(&cast);
	SET("kill_ms", 0);
	SET("ack_ms", 10000);
	CHECK(all_spaces_gone());
	CHECK(tell_about("ack", event.incident + 1000) == ENOENT);
	close(events);
}

static void many_holders(void)
{
	struct mps_guard_event event;
	struct cast cast = start_cast(true);
	int events = listen_events();

	for (int i = 0; i < 12; i++)
		ask(&cast, (struct order){ .verb = FORK });
	SET("kill_ms", 40);
	CHECK(ask(&cast, far_fault).fault.cancels != 1);
	event = wait_event(events, MPS_GUARD_SUNK, 2000);
	CHECK(event.holders == 14 && event.pid == cast.client);
	CHECK(ended_by(cast.client, SIGKILL));
	cast.client = 0;
	/* The server lives and holds it; when it goes nothing of the twelve is left to hold it. */
	CHECK(wait_event(events, MPS_GUARD_RELEASED, 3000).kind);
	CHECK(alive(cast.server));
	end_cast(&cast);
	CHECK(all_spaces_gone());
	SET("kill_ms", 0);
	close(events);
}

static void fork_after_the_fault(void)
{
	int events = listen_events();
	struct cast cast = start_cast(true);

	CHECK(ask(&cast, far_fault).fault.served == 1);
	ask(&cast, (struct order){ .verb = FORK });
	SET("kill_ms", 40);
	CHECK(ended_by(cast.client, SIGKILL));
	CHECK(wait_event(events, MPS_GUARD_RELEASED, 3000).kind); /* the child is not left */
	cast.client = 0;
	end_cast(&cast);
	SET("kill_ms", 0);
	CHECK(all_spaces_gone());
	close(events);
}

static void exec_in_the_middle(void)
{
	int events = listen_events();
	struct cast cast;

	SET("kill_ms", 200);
	cast = start_cast(true);
	give(&cast, far_fault);
	CHECK(wait_event(events, MPS_GUARD_SUNK, 2000).kind);
	CHECK(answer_of(&cast).fault.served == 1);
	give(&cast, (struct order){ .verb = EXEC });
	/* It has let the address space go, so the new program is nobody's client and lives. */
	CHECK(wait_event(events, MPS_GUARD_RELEASED, 3000).kind);
	CHECK(alive(cast.client));
	end_cast(&cast);
	SET("kill_ms", 0);
	CHECK(all_spaces_gone());
	close(events);
}

static void exit_in_the_middle(void)
{
	struct order leave = { .verb = LEAVE };
	struct cast cast;

	SHIM("slow_ms", 20);
	for (int i = 0; i < 8; i++) {
		cast = start_cast(i % 2);
		give(&cast, far_fault);
		give(&cast, leave);
		if (i % 3 == 0)
			kill(cast.client, SIGKILL);
		end_cast(&cast);
	}
	SHIM("slow_ms", 0);
	CHECK(all_spaces_gone());
}

/*
 * A new address space at the place of one that was given up is judged afresh, and by its own owner.
 */
static void pointer_reuse(void)
{
	int events = listen_events();
	struct mps_guard_event event;
	unsigned long long place;
	struct cast cast;

	SHIM("reuse", 1);
	cast = start_cast(false);
	CHECK(fault(&cast, FAR, ADDRESS).cancels == 1);
	CHECK(fault(&cast, FAR, ADDRESS).cancels == 1);
	place = stats_of(&cast).address;
	end_cast(&cast);
	cast = start_cast(true);
	CHECK(stats_of(&cast).address == place);
	CHECK(fault(&cast, FAR, ADDRESS).served == 1);
	event = wait_event(events, MPS_GUARD_SUNK, 2000);
	CHECK(event.pid == cast.client && event.windows == 1);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	SHIM("reuse", 0);
	close(events);
}

static void linger_keeps_the_address_space(void)
{
	int events = listen_events();
	uint64_t began;
	struct cast cast;

	SET("linger_ms", 400);
	cast = start_cast(true);
	CHECK(ask(&cast, far_fault).fault.served == 1);
	began = now_ms();
	end_cast(&cast);
	CHECK(spaces_alive() == 1);
	CHECK(wait_event(events, MPS_GUARD_RELEASED, 5000).kind);
	CHECK(now_ms() - began >= 400);
	CHECK(all_spaces_gone());
	SET("linger_ms", 20);
	close(events);
}

static void released_space_is_given_up(void)
{
	int events = listen_events();
	struct cast cast;
	struct order order;

	SET("kill_ms", 40);
	cast = start_cast(true);
	ask(&cast, far_fault);
	CHECK(wait_event(events, MPS_GUARD_RELEASED, 3000).kind);
	SET("kill_ms", 0);
	/* The server still holds the address space: the entry stays, and there is one only. */
	CHECK(alive(cast.server) && spaces_alive() == 1);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	order = far_fault;
	cast = start_cast(true);
	CHECK(ask(&cast, order).fault.served == 1);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	close(events);
}

static void more_clients_than_entries(void)
{
	enum { ENTRIES = 64 };
	struct cast cast[ENTRIES + 1];

	/*
	 * Each has been given up, and lives on: the table is full, and the next client is still
	 * isolated.
	 */
	for (int i = 0; i < ENTRIES; i++) {
		cast[i] = start_cast(false);
		CHECK(fault(&cast[i], FAR, ADDRESS).cancels == 1);
	}
	cast[ENTRIES] = start_cast(true);
	CHECK(fault(&cast[ENTRIES], FAR, ADDRESS).served == 1);
	for (int i = 0; i <= ENTRIES; i++)
		end_cast(&cast[i]);
	CHECK(all_spaces_gone());
}

const struct test life_tests[] = {
	TEST(acknowledged_is_not_killed),
	TEST(many_holders),
	TEST(fork_after_the_fault),
	TEST(exec_in_the_middle),
	TEST(exit_in_the_middle),
	TEST(pointer_reuse),
	TEST(linger_keeps_the_address_space),
	TEST(released_space_is_given_up),
	TEST(more_clients_than_entries),
	{ 0 },
};
