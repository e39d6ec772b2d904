// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kernels gone wild: many distinct pages at once. Isolated with few windows, or let through when a
 * budget is used up, and never held for longer than the deadline and the round that it ends in. The
 * last test measures what neighbours wait; how often is the environment's to say (storms=N on the
 * kernel's command line).
 */
#include "stage.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define USUAL_STORMS "3"
#define PUSH_US 10 /* an assumption: a method to the GPU and the wait for its semaphore */
#define MOST_STORMS 1000

static unsigned int windows_of(struct cast *cast, int events)
{
	struct mps_guard_event event;

	end_cast(cast);
	event = wait_event(events, MPS_GUARD_RELEASED, 5000);
	CHECK(event.kind);
	CHECK(all_spaces_gone());
	return event.windows;
}

/* A loop without an end over an array: 3,000 pages in 12 MiB, wherever they begin. */
static void an_overrun_needs_few_windows(void)
{
	static const uint64_t begins[] = { FAR, FAR + 4096, FAR + (7 << 20),
					   FAR + (1 << 30) - 8192 };
	int events = listen_events();

	for (size_t i = 0; i < sizeof(begins) / sizeof(*begins); i++) {
		struct cast cast = start_cast(true);

		CHECK(storm(&cast, begins[i], 3000, 4096).served == 1);
		CHECK(windows_of(&cast, events) <= 8);
	}
	close(events);
}

static void scattered_pages_are_isolated(void)
{
	int events = listen_events();
	struct cast cast = start_cast(true);

	CHECK(storm(&cast, FAR, 900, 4 << 20).served == 1);
	CHECK(windows_of(&cast, events) <= 16);
	close(events);
}

/* More than one round can bring, and more than can be remembered of it. */
static void a_million_pages_in_a_row(void)
{
	int events = listen_events();
	struct cast cast = start_cast(true);

	CHECK(storm(&cast, FAR, 1000000, 4096).served == 1);
	CHECK(windows_of(&cast, events) <= 16);
	close(events);
}

static void a_million_regions_pass(void)
{
	int events = listen_events();
	struct cast cast = start_cast(true);

	CHECK(storm(&cast, FAR, 1000000, 1ull << 26).cancels == 1);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 5000).why == WINDOWS);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	close(events);
}

/* One round alone takes longer than the deadline: there is no third. */
static void deadline_is_of_the_client(void)
{
	int events = listen_events();
	struct shim_fault seen;
	struct cast cast;

	SHIM("push_us", 200);
	SHIM("slow_map_ms", 50);
	SET("deadline_ms", 100);
	SET("window_kb", 64);
	cast = start_cast(true);
	seen = storm(&cast, FAR, 1000, 1ull << 30);
	CHECK(seen.cancels == 1 && seen.replays <= 2);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 5000).why == LATE);
	end_cast(&cast);
	/* Many short holds come to one long one. */
	SHIM("push_us", 0);
	cast = start_cast(true);
	for (uint64_t i = 0; i < 8; i++)
		seen = fault(&cast, FAR + (i << 36), ADDRESS);
	CHECK(seen.cancels == 1);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 5000).why == LATE);
	end_cast(&cast);
	SET("window_kb", 2048);
	SET("deadline_ms", DEADLINE_MS);
	SHIM("slow_map_ms", 0);
	CHECK(all_spaces_gone());
	close(events);
}

struct neighbour {
	volatile bool stop;
	uint32_t longest_us;
};

static void *accesses(void *data)
{
	struct neighbour *neighbour = data;
	int uvm = open("/dev/shim_uvm", O_RDWR | O_CLOEXEC);

	while (!neighbour->stop) {
		struct shim_touch touch = { 0 };

		ioctl(uvm, SHIM_TOUCH, &touch);
		if (touch.waited_us > neighbour->longest_us)
			neighbour->longest_us = touch.waited_us;
		usleep(50);
	}
	close(uvm);
	return NULL;
}

/* Also how long the client was in the bottom half, from its first fault to the last. */
static uint32_t stall_us(uint32_t pages, bool guarded, uint32_t *storm_ms)
{
	struct neighbour neighbour = { 0 };
	struct cast cast = start_cast(true);
	struct shim_fault seen;
	pthread_t thread;
	uint64_t began;

	if (pthread_create(&thread, NULL, accesses, &neighbour))
		abort();
	began = now_ms();
	seen = storm(&cast, FAR, pages, 4096);
	*storm_ms = (uint32_t)(now_ms() - began);
	CHECK(guarded ? seen.served == 1 : seen.cancels == 1);
	neighbour.stop = true;
	pthread_join(thread, NULL);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	return neighbour.longest_us;
}

static int ascending(const void *a, const void *b)
{
	uint32_t first = *(const uint32_t *)a, second = *(const uint32_t *)b;

	return first < second ? -1 : first > second;
}

/* The longest wait of one neighbour in each storm; with the driver alone all would end there. */
static void neighbours_stall(void)
{
	static const uint32_t sizes[] = { 1, 100, 10000 };
	static uint32_t longest[MOST_STORMS], lasted[MOST_STORMS];
	const char *wanted = getenv("storms");
	unsigned long storms = strtoul(wanted ? wanted : USUAL_STORMS, NULL, 10);

	if (!storms || storms > MOST_STORMS)
		abort();
	SHIM("push_us", PUSH_US);
	SHIM("buffer", 16384);
	for (size_t i = 0; i < 2 * sizeof(sizes) / sizeof(*sizes); i++) {
		bool guarded = i % 2;

		SET("enabled", guarded);
		for (unsigned long n = 0; n < storms; n++)
			longest[n] = stall_us(sizes[i / 2], guarded, &lasted[n]);
		qsort(longest, storms, sizeof(*longest), ascending);
		qsort(lasted, storms, sizeof(*lasted), ascending);
		printf("stall guard=%d pages=%u storms=%lu push_us=%d "
		       "p50_us=%u p99_us=%u max_us=%u storm_p50_ms=%u storm_p99_ms=%u\n",
		       guarded, sizes[i / 2], storms, PUSH_US, longest[storms / 2],
		       longest[(storms * 99 + 99) / 100 - 1], longest[storms - 1],
		       lasted[storms / 2], lasted[(storms * 99 + 99) / 100 - 1]);
	}
	SHIM("buffer", 4096);
	SHIM("push_us", 0);
	SET("enabled", 1);
}

const struct test storm_tests[] = {
	TEST(an_overrun_needs_few_windows), TEST(scattered_pages_are_isolated),
	TEST(a_million_pages_in_a_row),	    TEST(a_million_regions_pass),
	TEST(deadline_is_of_the_client),    { 0 },
};

const struct test measurement[] = {
	TEST(neighbours_stall),
	{ 0 },
};
