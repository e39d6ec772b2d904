// SPDX-License-Identifier: GPL-2.0-only
/* /dev/mps_guard and the tracepoint: what is told, to whom, and what is understood. */
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRACING "/sys/kernel/tracing/"

/* Every field as C reads it, and the bytes: the reader in Python is held against both. */
static void show(const struct mps_guard_event *event)
{
	const unsigned char *byte = (const unsigned char *)event;

	printf("fields version=%u size=%u sequence=%llu time_ns=%llu incident=%llu address=%llu "
	       "start_ns=%llu cgroup=%llu dropped=%llu kind=%u why=%u gpu=%u reason=%u pid=%d "
	       "uid=%u windows=%u holds=%u holders=%u comm=%s\n",
	       event->version, event->size, event->sequence, event->time_ns, event->incident,
	       event->address, event->start_ns, event->cgroup, event->dropped, event->kind,
	       event->why, event->gpu, event->reason, event->pid, event->uid, event->windows,
	       event->holds, event->holders, event->comm);
	printf("record ");
	for (size_t i = 0; i < sizeof(*event); i++)
		printf("%02x", byte[i]);
	printf("\n");
}

static void records_are_what_they_say(void)
{
	int events = listen_events(), watch = listen_events();
	struct mps_guard_event event[8];
	struct cast cast;
	ssize_t got;

	SET("kill_ms", 40);
	cast = start_cast(true);
	fault(&cast, FAR + 0xabcde8, PERMISSIONS);
	CHECK(wait_event(watch, MPS_GUARD_RELEASED, 2000).kind);
	close(watch);
	got = read(events, event, sizeof(event)); /* several at once, whole */
	CHECK(got == 4 * (ssize_t)sizeof(*event));
	for (ssize_t i = 0; i < got / (ssize_t)sizeof(*event); i++) {
		show(&event[i]);
		CHECK(!i || event[i].sequence == event[i - 1].sequence + 1);
		CHECK(!i || event[i].time_ns >= event[i - 1].time_ns);
	}
	CHECK(event[0].kind == MPS_GUARD_HELD && event[1].kind == MPS_GUARD_SUNK);
	CHECK(event[2].kind == MPS_GUARD_KILLED && event[3].kind == MPS_GUARD_RELEASED);
	CHECK(event[1].pid == cast.client && event[1].start_ns && event[1].cgroup);
	end_cast(&cast);
	SET("kill_ms", 0);
	close(events);
}

static void ring_overflow_is_counted(void)
{
	int events = listen_events();
	struct mps_guard_event event;
	unsigned int spaces = MPS_GUARD_RING / 2 + 5;

	/* Two records each: held, and passed as nobody holds what is torn down. */
	SHIM("late", 1);
	for (unsigned int i = 0; i < spaces; i++)
		close(open("/dev/shim_uvm", O_RDWR | O_CLOEXEC));
	SHIM("late", 0);
	CHECK(read(events, &event, sizeof(event)) == sizeof(event));
	CHECK(event.dropped == 2 * spaces - MPS_GUARD_RING);
	close(events);
}

static void bad_words_are_refused(void)
{
	const char *bad[] = {
		"",	  "ack",    "ack x",
		"ack -1", "gpu 12", "gpu 5a5a5a5a000102030405060708090a0z",
		"pid 0",  "pid 1",  "pid 99999999999",
		"quit",
	};
	char long_line[100], buffer[64];
	void *volatile nowhere = (void *)8;
	int fd = open("/dev/mps_guard", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK(write(fd, bad[i], strlen(bad[i])) < 0 && errno == EINVAL);
	memset(long_line, 'a', sizeof(long_line));
	CHECK(write(fd, long_line, sizeof(long_line)) < 0 && errno == EINVAL);
	CHECK(write(fd, nowhere, 8) < 0 && errno == EFAULT);
	CHECK(read(fd, buffer, sizeof(buffer)) < 0 && errno == EINVAL);
	close(fd);
}

static void only_root_may_open(void)
{
	pid_t child = fork();
	int status = 0;

	if (child == 0) {
		if (setgid(1000) || setuid(1000))
			_exit(1);
		_exit(open("/dev/mps_guard", O_RDONLY) < 0 && errno == EACCES ? 0 : 2);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void *read_one(void *data)
{
	struct mps_guard_event event;
	int fd = *(int *)data;

	return (void *)(intptr_t)read(fd, &event, sizeof(event));
}

/* A reader that blocks is woken by the next record; an empty answer (end of file) never comes. */
static void reader_is_woken(void)
{
	int fd = listen_events();
	void *got[2] = { NULL };
	pthread_t thread[2];
	struct cast cast;

	fcntl(fd, F_SETFL, 0);
	for (int i = 0; i < 2; i++)
		if (pthread_create(&thread[i], NULL, read_one, &fd))
			not_true(__LINE__, "thread");
	cast = start_cast(true);
	fault(&cast, FAR, ADDRESS);
	for (int i = 0; i < 2; i++) {
		pthread_join(thread[i], &got[i]);
		CHECK((intptr_t)got[i] == sizeof(struct mps_guard_event));
	}
	end_cast(&cast);
	close(fd);
	CHECK(all_spaces_gone());
}

static bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return ok;
}

static void tracepoint_fires(void)
{
	char text[8192] = "";
	struct cast cast;
	int fd;

	CHECK(put(TRACING "events/mps_guard/mps_guard/enable", "1"));
	cast = start_cast(true);
	fault(&cast, FAR + 0x40, ADDRESS);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	CHECK(put(TRACING "events/mps_guard/mps_guard/enable", "0"));
	fd = open(TRACING "trace", O_RDONLY | O_CLOEXEC);
	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	CHECK(strstr(text, "kind=1 why=0 gpu=1 pid=0 va=0x7f0000000040 reason=1"));
	CHECK(strstr(text, "kind=3 why=0"));
	CHECK(put(TRACING "trace", "0"));
}

/* What the agent's adapter stands on: parameters and the node tell a watch of their changes. */
static bool noticed(int watch, unsigned int mask, const char *name)
{
	char buffer[4096] __attribute__((aligned(8)));
	struct pollfd poller = { .fd = watch, .events = POLLIN };

	while (poll(&poller, 1, 5000) == 1) {
		ssize_t got = read(watch, buffer, sizeof(buffer));

		for (ssize_t at = 0; at < got;) {
			struct inotify_event *event = (void *)(buffer + at);

			if (event->mask & mask && event->len && !strcmp(event->name, name))
				return true;
			at += (ssize_t)(sizeof(*event) + event->len);
		}
	}
	return false;
}

static void changes_are_noticed(void)
{
	int watch = inotify_init1(IN_CLOEXEC);

	CHECK(inotify_add_watch(watch, "/sys/module/mps_guard/parameters", IN_MODIFY) > 0);
	SET("enabled", 0);
	CHECK(noticed(watch, IN_MODIFY, "enabled"));
	CHECK(inotify_add_watch(watch, "/dev", IN_CREATE | IN_DELETE) > 0);
	CHECK(rmmod("mps_guard") == 0);
	CHECK(noticed(watch, IN_DELETE, "mps_guard"));
	load_guard("enabled=1");
	CHECK(noticed(watch, IN_CREATE, "mps_guard"));
	close(watch);
}

/* By these the agent knows whether anything can be isolated, and when it may let the module go. */
static void counts_are_shown(void)
{
	int events = listen_events();
	struct cast cast = start_cast(true);

	CHECK(shown("gpus") == 1);
	CHECK(tell("gpu 5b5a5a5a000102030405060708090a0b") == 0);
	CHECK(tell("gpu 5b5a5a5a000102030405060708090a0b") == 0);
	CHECK(shown("gpus") == 2);
	CHECK(shown("clients") == 0);
	CHECK(fault(&cast, FAR, ADDRESS).served == 1);
	CHECK(shown("clients") == 1);
	SET("enabled", 0);
	end_cast(&cast);
	CHECK(wait_event(events, MPS_GUARD_RELEASED, 2000).kind);
	CHECK(shown("clients") == 0);
	SET("enabled", 1);
	CHECK(all_spaces_gone());
	close(events);
}

const struct test device_tests[] = {
	TEST(records_are_what_they_say),
	TEST(ring_overflow_is_counted),
	TEST(bad_words_are_refused),
	TEST(only_root_may_open),
	TEST(reader_is_woken),
	TEST(tracepoint_fires),
	TEST(changes_are_noticed),
	TEST(counts_are_shown),
	{ 0 },
};
