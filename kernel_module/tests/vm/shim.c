// SPDX-License-Identifier: GPL-2.0-only
/*
 * The stand-in itself, before the guard is loaded: it behaves as the driver was seen to behave, so
 * that what the guard does against it means something.
 */
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int own_space(void)
{
	return open("/dev/shim_uvm", O_RDWR | O_CLOEXEC);
}

/* The errno of an ioctl on a range. */
static int range(int uvm, unsigned long command, uint64_t base, uint64_t length, uint64_t page)
{
	struct shim_range range = { base, length, page };

	return ioctl(uvm, command, &range) ? errno : 0;
}

static struct shim_stats stats(int uvm)
{
	struct shim_stats stats = { 0 };

	ioctl(uvm, SHIM_STATS, &stats);
	return stats;
}

static void every_page_is_cancelled_in_a_round(void)
{
	struct shim_fault fault = { .va = FAR, .reason = ADDRESS, .pages = 100, .stride = 8192 };
	uint64_t records = all_stats().records, cancels = all_stats().cancels;
	int uvm = own_space();

	ioctl(uvm, SHIM_FAULT, &fault);
	CHECK(fault.replays == 1 && fault.cancels == 1 && fault.events == 100);
	CHECK(all_stats().records == records + 100 && all_stats().cancels == cancels + 100);
	close(uvm);
}

#define SLOW_PAGES 200

static void *slow_round(void *data)
{
	struct shim_fault fault = { .va = FAR, .reason = ADDRESS, .pages = SLOW_PAGES };

	ioctl(*(int *)data, SHIM_FAULT, &fault);
	return NULL;
}

/* Who wants to change ranges waits for the end of the round, not only of one fault. */
static void lock_is_held_through_a_round(void)
{
	uint64_t records = all_stats().records;
	pthread_t thread;
	int uvm = own_space();

	SHIM("push_us", 1000);
	if (pthread_create(&thread, NULL, slow_round, &uvm))
		not_true(__LINE__, "thread");
	while (all_stats().records == records)
		usleep(100);
	CHECK(range(uvm, SHIM_EXTERNAL, FAR, 1 << 21, 0) == 0);
	CHECK(all_stats().records == records + SLOW_PAGES);
	pthread_join(thread, NULL);
	SHIM("push_us", 0);
	close(uvm);
}

static void *touches(void *data)
{
	struct shim_touch *touch = data;
	int uvm = own_space();

	ioctl(uvm, SHIM_TOUCH, touch);
	close(uvm);
	return NULL;
}

/* One bottom half for each GPU: a neighbour waits, one on the other GPU does not. */
static void neighbours_wait_for_the_bottom_half(void)
{
	struct shim_touch touch[2] = { { .gpu = 0 }, { .gpu = 1 } };
	uint64_t records = all_stats().records;
	int uvm = own_space();
	pthread_t thread;

	SHIM("push_us", 1000);
	if (pthread_create(&thread, NULL, slow_round, &uvm))
		not_true(__LINE__, "thread");
	while (all_stats().records == records)
		usleep(100);
	touches(&touch[1]);
	CHECK(all_stats().records < records + SLOW_PAGES);
	touches(&touch[0]);
	CHECK(all_stats().records == records + SLOW_PAGES && touch[0].waited_us);
	pthread_join(thread, NULL);
	SHIM("push_us", 0);
	close(uvm);
}

static void sparse_begins_at_64k(void)
{
	int uvm = own_space();

	CHECK(range(uvm, SHIM_EXTERNAL, FAR + 4096, 1 << 20, 0) == 0);
	CHECK(range(uvm, SHIM_EXTERNAL, FAR, 8192, 0) == EEXIST);
	CHECK(range(uvm, SHIM_EXTERNAL, 0, 65536, 0) == EINVAL);
	CHECK(range(uvm, SHIM_MAP, FAR + 4096, 65536, 0) == EINVAL);
	CHECK(range(uvm, SHIM_MAP, FAR + 65536, 4096, 0) == EINVAL);
	CHECK(range(uvm, SHIM_MAP, FAR + 65536, 65536, 0) == 0);
	CHECK(stats(uvm).sparse_bytes == 65536 && stats(uvm).lowest_sparse == FAR + 65536);
	close(uvm);
}

/* A new mapping replaces what lies under it, which is split between its pages and nowhere else. */
static void mappings_are_split_between_pages(void)
{
	int uvm = own_space();

	CHECK(range(uvm, SHIM_EXTERNAL, FAR, 8 << 20, 0) == 0);
	CHECK(range(uvm, SHIM_MAP, FAR, 8 << 20, 2 << 20) == 0);
	CHECK(range(uvm, SHIM_MAP, FAR + 65536, 65536, 0) == EINVAL);
	CHECK(stats(uvm).sparse_bytes == 0);
	CHECK(range(uvm, SHIM_MAP, FAR + (2 << 20), 2 << 20, 0) == 0);
	CHECK(stats(uvm).sparse_bytes == 2 << 20);
	CHECK(range(uvm, SHIM_MAP, FAR + (2 << 20) + 65536, 65536, 65536) == 0);
	CHECK(stats(uvm).sparse_bytes == (2 << 20) - 65536);
	close(uvm);
}

static void faults_are_served_during_destroy(void)
{
	struct shim_stats before = all_stats();

	SHIM("late", 1);
	close(own_space());
	SHIM("late", 0);
	CHECK(all_stats().cancels == before.cancels + 1 && all_stats().alive == before.alive);
}

/* Whoever is inside when the GPUs go to sleep is waited for; nobody comes in until they wake. */
static void sleep_keeps_callers_out(void)
{
	int uvm = own_space();

	CHECK(ioctl(uvm, SHIM_POWER, 1) == 0);
	CHECK(range(uvm, SHIM_EXTERNAL, FAR, 1 << 21, 0) == EAGAIN);
	CHECK(ioctl(uvm, SHIM_POWER, 0) == 0);
	CHECK(range(uvm, SHIM_EXTERNAL, FAR, 1 << 21, 0) == 0);
	CHECK(all_stats().bare_calls == 0);
	close(uvm);
}

const struct test shim_tests[] = {
	TEST(every_page_is_cancelled_in_a_round),
	TEST(lock_is_held_through_a_round),
	TEST(neighbours_wait_for_the_bottom_half),
	TEST(sparse_begins_at_64k),
	TEST(mappings_are_split_between_pages),
	TEST(faults_are_served_during_destroy),
	TEST(sleep_keeps_callers_out),
	{ 0 },
};
