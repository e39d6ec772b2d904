// SPDX-License-Identifier: GPL-2.0-only
/* Loading and unloading: in use, in the middle of things, often, and where an anchor is missing. */
#include "stage.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static const struct order far_fault = { .verb = FAULT, .fault = { .va = FAR, .reason = ADDRESS } };

static void driver_cannot_leave_first(void)
{
	CHECK(rmmod("nvidia_uvm") == EWOULDBLOCK);
}

static void *poll_one(void *data)
{
	struct pollfd poller = { .fd = *(int *)data, .events = POLLIN };

	return (void *)(intptr_t)(poll(&poller, 1, 10000) == 1 ? poller.revents : 0);
}

static void readers_keep_it_loaded(void)
{
	int events = listen_events();
	struct cast cast = start_cast(true);
	void *seen = NULL;
	pthread_t thread;

	if (pthread_create(&thread, NULL, poll_one, &events))
		not_true(__LINE__, "thread");
	CHECK(rmmod("mps_guard") == EWOULDBLOCK);
	CHECK(ask(&cast, far_fault).fault.served == 1); /* refused, it goes on working */
	pthread_join(thread, &seen);
	CHECK((intptr_t)seen & POLLIN);
	close(events);
	CHECK(rmmod("mps_guard") == 0);
	end_cast(&cast);
	load_guard("enabled=1");
	CHECK(all_spaces_gone());
}

static void unload_while_held(void)
{
	int events = listen_events();
	struct order order;
	struct cast cast;

	SHIM("slow_ms", 200);
	SET("deadline_ms", 10000);
	cast = start_cast(true);
	give(&cast, far_fault);
	CHECK(wait_event(events, MPS_GUARD_HELD, 2000).kind);
	close(events);
	CHECK(rmmod("mps_guard") == 0);
	order = answer_of(&cast);
	CHECK(order.fault.cancels + order.fault.served == 1);
	SHIM("slow_ms", 0);
	end_cast(&cast);
	load_guard("enabled=1");
	CHECK(all_spaces_gone());
}

/* A client that computes with zeros is not left behind by a module that goes. */
static void unload_ends_the_doomed(void)
{
	int events = listen_events();
	struct cast cast;

	SET("kill_ms", 60000);
	cast = start_cast(true);
	CHECK(ask(&cast, far_fault).fault.served == 1);
	CHECK(wait_event(events, MPS_GUARD_SUNK, 2000).kind);
	close(events);
	CHECK(rmmod("mps_guard") == 0);
	CHECK(ended_by(cast.client, SIGKILL));
	CHECK(alive(cast.server));
	cast.client = 0;
	end_cast(&cast);
	load_guard("enabled=1");
	CHECK(all_spaces_gone());
}

/* Address spaces end while the module comes and goes, which knows of them through a probe. */
static void *churn(void *data)
{
	volatile bool *stop = data;
	unsigned int rounds = 0;

	while (!*stop) {
		spaces_alive();
		rounds++;
	}
	return (void *)(uintptr_t)rounds;
}

static void many_rounds(void)
{
	volatile bool stop = false;
	void *churned = NULL;
	pthread_t thread;

	for (int i = 0; i < 50; i++) {
		if (i == 0 && pthread_create(&thread, NULL, churn, (void *)&stop))
			not_true(__LINE__, "thread");
		CHECK(rmmod("mps_guard") == 0);
		load_guard("enabled=1");
		if (i == 5) {
			stop = true;
			pthread_join(thread, &churned);
			CHECK((uintptr_t)churned > 20);
		}
		if (i % 10 == 9) {
			struct cast cast = start_cast(true);

			CHECK(ask(&cast, far_fault).fault.served == 1);
			end_cast(&cast);
		}
	}
	CHECK(all_spaces_gone());
}

/* With one that it does not know it would leave some GPUs unguarded, and look as if it did not. */
static void refuses_an_unknown_cancel(void)
{
	CHECK(rmmod("mps_guard") == 0);
	CHECK(rmmod("nvidia_uvm") == 0);
	insmod("/new_cancel.ko", "", 0);
	insmod("/mps_guard.ko", "", EOPNOTSUPP);
	CHECK(rmmod("nvidia_uvm") == 0);
	insmod("/nvidia_uvm.ko", "", 0);
	load_guard("");
}

static void refuses_without_anchors(void)
{
	static const char *const lacking[] = { "/no_cancel.ko", "/no_sparse.ko", "/no_context.ko",
					       "/no_register.ko", "/no_sleep.ko" };

	CHECK(rmmod("mps_guard") == 0);
	CHECK(rmmod("nvidia_uvm") == 0);
	insmod("/mps_guard.ko", "", ENODEV);
	for (size_t i = 0; i < sizeof(lacking) / sizeof(*lacking); i++) {
		insmod(lacking[i], "", 0);
		insmod("/mps_guard.ko", "", ENOENT);
		CHECK(rmmod("nvidia_uvm") == 0);
	}
}

const struct test load_tests[] = {
	TEST(driver_cannot_leave_first),
	TEST(readers_keep_it_loaded),
	TEST(unload_while_held),
	TEST(unload_ends_the_doomed),
	TEST(many_rounds),
	TEST(refuses_an_unknown_cancel),
	TEST(refuses_without_anchors),
	{ 0 },
};
