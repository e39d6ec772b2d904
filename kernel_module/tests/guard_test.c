/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guard against the shim, inside a virtual machine: run as init's only child, static, prints one line a test and the count last.
 *
 * Each test forks a "server" (named as NVIDIA's, holding the client's descriptor) and a client, lets the client fault, and looks at
 * who lives, what the shim counted and what /dev/mps_guard told. Waits are bounded; nothing sleeps without a condition.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../uapi/mps_guard.h"
#include "shim/shim.h"

#define GPU_WORD "gpu 5a5a5a5a000102030405060708090a0b"
#define FAR 0x7f0000000000ull
enum { ADDRESS = 1, PERMISSIONS = 2, FAULT_TYPE = 3, MEMORY = 4, INTERNAL = 5 };

static int passed, failed;
static const char *test_name;
static bool test_ok;

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			printf("  %s:%d: not true: %s\n", test_name, __LINE__, #what);             \
			test_ok = false;                                                           \
		}                                                                                  \
	} while (0)

static void insmod(const char *path, const char *args, int expected)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int error = syscall(SYS_finit_module, fd, args, 0) ? errno : 0;

	if (error != expected) {
		printf("  %s: insmod %s: %s\n", test_name, path, strerror(error));
		test_ok = false;
	}
	close(fd);
}

static void rmmod(const char *name)
{
	if (syscall(SYS_delete_module, name, 0)) {
		printf("  %s: rmmod %s: %s\n", test_name, name, strerror(errno));
		test_ok = false;
	}
}

static void set_in(const char *module, const char *parameter, unsigned int value)
{
	char path[128], text[16];
	int fd;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module, parameter);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	snprintf(text, sizeof(text), "%u", value);
	if (fd < 0 || write(fd, text, strlen(text)) < 0) {
		printf("  %s: cannot set %s\n", test_name, path);
		test_ok = false;
	}
	close(fd);
}

#define SET(parameter, value) set_in("mps_guard", parameter, value)

static int tell(const char *line)
{
	int fd = open("/dev/mps_guard", O_RDWR | O_CLOEXEC);
	int error = write(fd, line, strlen(line)) < 0 ? errno : 0;

	close(fd);
	return error;
}

static int listen_events(void)
{
	struct mps_guard_event event;
	int fd = open("/dev/mps_guard", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	while (read(fd, &event, sizeof(event)) == sizeof(event))
		;
	return fd;
}

/* The next record of that kind within `ms`; kind 0 in the result when none came. */
static struct mps_guard_event wait_event(int fd, unsigned int kind, int ms)
{
	struct mps_guard_event event = { 0 };
	struct timespec now, end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += ms / 1000 + 1;
	do {
		struct pollfd poller = { .fd = fd, .events = POLLIN };

		while (read(fd, &event, sizeof(event)) == sizeof(event))
			if (event.kind == kind)
				return event;
		poll(&poller, 1, 50);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec);
	memset(&event, 0, sizeof(event));
	return event;
}

struct cast {
	int uvm; /* our own copy of the client's descriptor is never kept: the guard would find us */
	pid_t client, server;
	int orders, answers; /* pipes to the client */
};

struct order {
	enum { FAULT, RANGE, STATS, FORK, LEAVE } verb;
	struct shim_fault fault;
	struct shim_range range;
	struct shim_stats stats;
};

static void client_main(int uvm, int orders, int answers)
{
	struct order order;

	while (read(orders, &order, sizeof(order)) == sizeof(order)) {
		switch (order.verb) {
		case FAULT:
			ioctl(uvm, SHIM_FAULT, &order.fault);
			break;
		case RANGE:
			ioctl(uvm, SHIM_RANGE, &order.range);
			break;
		case STATS:
			ioctl(uvm, SHIM_STATS, &order.stats);
			break;
		case FORK:
			if (fork() == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				for (;;)
					pause();
			}
			break;
		case LEAVE:
			_exit(0);
		}
		if (write(answers, &order, sizeof(order)) != sizeof(order))
			_exit(1);
	}
	_exit(0);
}

/* A forked actor keeps only what its part needs: a descriptor of /dev/mps_guard left open would keep the module in use. */
static void keep_only(int first, int second, int third)
{
	for (int fd = 3; fd < 64; fd++)
		if (fd != first && fd != second && fd != third)
			close(fd);
}

static struct cast start_cast(bool with_server)
{
	int to[2], from[2], uvm = open("/dev/shim_uvm", O_RDWR);
	struct cast cast = { 0 };

	if (uvm < 0 || pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		abort();
	if (with_server) {
		cast.server = fork();
		if (cast.server == 0) {
			prctl(PR_SET_NAME, "nvidia-cuda-mps-server");
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			keep_only(uvm, -1, -1);
			for (;;)
				pause();
		}
	}
	cast.client = fork();
	if (cast.client == 0) {
		keep_only(uvm, to[0], from[1]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "client");
		client_main(uvm, to[0], from[1]);
	}
	close(uvm);
	close(to[0]);
	close(from[1]);
	cast.orders = to[1];
	cast.answers = from[0];
	if (with_server) /* the name is set before the first fault asks for it */
		for (int i = 0; i < 1000; i++) {
			char path[64], comm[32] = "";
			int fd;

			snprintf(path, sizeof(path), "/proc/%d/comm", cast.server);
			fd = open(path, O_RDONLY | O_CLOEXEC);
			if (read(fd, comm, sizeof(comm) - 1) < 0)
				abort();
			close(fd);
			if (!strncmp(comm, "nvidia-cuda-mps", 15))
				break;
			usleep(1000);
		}
	return cast;
}

static struct order ask(struct cast *cast, struct order order)
{
	if (write(cast->orders, &order, sizeof(order)) != sizeof(order) || read(cast->answers, &order, sizeof(order)) != sizeof(order))
		memset(&order, 0xff, sizeof(order)); /* ended meanwhile */
	return order;
}

static struct shim_fault fault(struct cast *cast, uint64_t va, uint32_t reason)
{
	return ask(cast, (struct order){ .verb = FAULT, .fault = { .va = va, .reason = reason } }).fault;
}

static struct shim_stats stats_of(struct cast *cast)
{
	return ask(cast, (struct order){ .verb = STATS }).stats;
}

static bool alive(pid_t pid)
{
	int status;

	return pid && waitpid(pid, &status, WNOHANG) == 0;
}

/* Whether the process ends within two seconds, by that signal. */
static bool ended_by(pid_t pid, int signal_number)
{
	int status = 0;

	for (int i = 0; i < 4000; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFSIGNALED(status) && WTERMSIG(status) == signal_number;
		usleep(1000);
	}
	return false;
}

static void end_cast(struct cast *cast)
{
	close(cast->orders);
	close(cast->answers);
	if (cast->client)
		kill(cast->client, SIGKILL);
	if (cast->server)
		kill(cast->server, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static unsigned long long spaces_alive(void)
{
	int fd = open("/dev/shim_uvm", O_RDWR | O_CLOEXEC);
	struct shim_stats stats = { 0 };

	ioctl(fd, SHIM_STATS, &stats);
	close(fd);
	return stats.alive - 1;
}

static bool all_spaces_gone(void)
{
	for (int i = 0; i < 5000; i++) {
		if (spaces_alive() == 0)
			return true;
		usleep(1000);
	}
	return false;
}

static void load(void)
{
	insmod("/mps_guard.ko", "kill_ms=50 linger_ms=20 rate=100000", 0);
	CHECK(tell(GPU_WORD) == 0);
}

/* ------------------------------------------------------------------ the tests */

static void off_by_default(void)
{
	struct cast cast = start_cast(true);
	struct shim_fault seen = fault(&cast, FAR, ADDRESS);

	CHECK(seen.cancels == 1 && seen.replays == 1 && !seen.served);
	CHECK(alive(cast.client));
	end_cast(&cast);
}

static void held_sunk_ended(void)
{
	int events = listen_events();
	struct cast cast;
	struct mps_guard_event event;
	struct shim_fault seen;

	SET("enabled", 1);
	cast = start_cast(true);
	seen = fault(&cast, FAR + 0x123458, ADDRESS);
	CHECK(seen.cancels != 1); /* the answer may be lost with the client: then 0xffffffff */
	event = wait_event(events, MPS_GUARD_HELD, 2000);
	CHECK(event.address == FAR + 0x123458 && event.reason == ADDRESS && event.version == MPS_GUARD_VERSION);
	event = wait_event(events, MPS_GUARD_SUNK, 2000);
	CHECK(event.pid == cast.client && event.holders == 2 && event.windows == 1 && !strcmp(event.comm, "client"));
	CHECK(wait_event(events, MPS_GUARD_KILLED, 2000).pid == cast.client);
	CHECK(ended_by(cast.client, SIGKILL));
	CHECK(alive(cast.server));
	CHECK(wait_event(events, MPS_GUARD_RELEASED, 2000).kind);
	cast.client = 0;
	end_cast(&cast);
	CHECK(all_spaces_gone());
	close(events);
}

static void acknowledged_is_not_killed(void)
{
	int events = listen_events();
	struct cast cast;
	struct mps_guard_event event;
	char line[64];

	SET("kill_ms", 400);
	cast = start_cast(true);
	CHECK(fault(&cast, FAR, PERMISSIONS).served == 1);
	event = wait_event(events, MPS_GUARD_SUNK, 2000);
	snprintf(line, sizeof(line), "ack %llu\n", (unsigned long long)event.incident);
	CHECK(tell(line) == 0);
	CHECK(wait_event(events, MPS_GUARD_KILLED, 1000).kind == 0);
	CHECK(alive(cast.client));
	end_cast(&cast);
	CHECK(all_spaces_gone());
	SET("kill_ms", 0);
	close(events);
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

static void not_a_client_passes(void)
{
	struct cast cast = start_cast(false);
	struct shim_fault seen = fault(&cast, FAR, ADDRESS);
	char line[32];

	CHECK(seen.cancels == 1);
	end_cast(&cast);
	SET("scope", 1);
	cast = start_cast(false);
	snprintf(line, sizeof(line), "pid %d", cast.client);
	CHECK(tell(line) == 0);
	CHECK(fault(&cast, FAR, ADDRESS).served == 1);
	end_cast(&cast);
	SET("scope", 0);
	CHECK(all_spaces_gone());
}

static void window_halves_beside_a_neighbour(void)
{
	struct cast cast = start_cast(true);
	struct shim_stats stats;

	ask(&cast, (struct order){ .verb = RANGE, .range = { FAR, 1 << 20 } });
	CHECK(fault(&cast, FAR + (1 << 20) + 8, ADDRESS).served == 1);
	stats = stats_of(&cast);
	CHECK(stats.sparse_bytes == 1 << 20 && stats.lowest_sparse == FAR + (1 << 20));
	end_cast(&cast);
	CHECK(all_spaces_gone());
}

static void no_room_passes(void)
{
	struct cast cast = start_cast(true);

	ask(&cast, (struct order){ .verb = RANGE, .range = { FAR, 2 << 20 } });
	CHECK(fault(&cast, FAR + 8, ADDRESS).cancels == 1);
	end_cast(&cast);
	CHECK(all_spaces_gone());
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

static void deadline_passes(void)
{
	struct cast cast;
	struct shim_fault seen;

	set_in("nvidia_uvm", "slow_ms", 500);
	SET("deadline_ms", 50);
	cast = start_cast(true);
	seen = fault(&cast, FAR, ADDRESS);
	CHECK(seen.cancels == 1 && seen.replays > 1);
	set_in("nvidia_uvm", "slow_ms", 0);
	SET("deadline_ms", 200);
	end_cast(&cast);
	CHECK(all_spaces_gone());
}

static void null_page(void)
{
	struct cast cast = start_cast(true);

	CHECK(fault(&cast, 8, ADDRESS).cancels == 1);
	end_cast(&cast);
	SET("null_page", 1);
	cast = start_cast(true);
	CHECK(fault(&cast, 8, ADDRESS).served == 1);
	CHECK(stats_of(&cast).lowest_sparse == 0);
	end_cast(&cast);
	SET("null_page", 0);
	CHECK(all_spaces_gone());
}

static void observe_only_records(void)
{
	int events = listen_events();
	struct cast cast;

	SET("observe", 1);
	cast = start_cast(true);
	CHECK(fault(&cast, FAR, ADDRESS).cancels == 1);
	CHECK(wait_event(events, MPS_GUARD_PASSED, 2000).why == 2);
	end_cast(&cast);
	SET("observe", 0);
	close(events);
}

static void many_holders(void)
{
	struct cast cast = start_cast(true);
	int events = listen_events();

	for (int i = 0; i < 12; i++)
		ask(&cast, (struct order){ .verb = FORK });
	CHECK(fault(&cast, FAR, ADDRESS).served == 1);
	CHECK(wait_event(events, MPS_GUARD_SUNK, 2000).holders == 8);
	end_cast(&cast);
	CHECK(all_spaces_gone());
	close(events);
}

static void client_leaves_in_the_middle(void)
{
	struct order leave = { .verb = LEAVE };
	struct order order = { .verb = FAULT, .fault = { .va = FAR, .reason = ADDRESS } };
	int events = listen_events();
	struct cast cast;

	set_in("nvidia_uvm", "slow_ms", 30);
	for (int i = 0; i < 10; i++) {
		cast = start_cast(i % 2);
		if (write(cast.orders, &order, sizeof(order)) != sizeof(order) || write(cast.orders, &leave, sizeof(leave)) < 0)
			abort();
		if (i % 3 == 0)
			kill(cast.client, SIGKILL);
		end_cast(&cast);
	}
	set_in("nvidia_uvm", "slow_ms", 0);
	CHECK(all_spaces_gone());
	close(events);
}

static void ring_overflow_is_counted(void)
{
	int events = listen_events();
	struct mps_guard_event event;
	struct cast cast;

	SET("observe", 1);
	for (int i = 0; i < MPS_GUARD_RING + 20; i++) {
		cast = start_cast(false);
		fault(&cast, FAR, ADDRESS);
		end_cast(&cast);
	}
	CHECK(read(events, &event, sizeof(event)) == sizeof(event) && event.dropped == 20);
	SET("observe", 0);
	close(events);
}

static void bad_words_are_refused(void)
{
	const char *bad[] = { "", "ack", "ack x", "gpu 12", "gpu 5a5a5a5a000102030405060708090a0z", "pid 0", "pid 99999999999", "quit" };
	char buffer[64];
	int fd = open("/dev/mps_guard", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK(tell(bad[i]) == EINVAL);
	CHECK(read(fd, buffer, sizeof(buffer)) < 0 && errno == EINVAL);
	close(fd);
}

static void unload_while_held(void)
{
	struct order order = { .verb = FAULT, .fault = { .va = FAR, .reason = ADDRESS } };
	struct cast cast;
	int events = listen_events();

	set_in("nvidia_uvm", "slow_ms", 300);
	SET("deadline_ms", 10000);
	cast = start_cast(true);
	if (write(cast.orders, &order, sizeof(order)) != sizeof(order))
		abort();
	CHECK(wait_event(events, MPS_GUARD_HELD, 2000).kind);
	close(events);
	rmmod("mps_guard");
	CHECK(read(cast.answers, &order, sizeof(order)) == sizeof(order));
	CHECK(order.fault.cancels + order.fault.served == 1);
	set_in("nvidia_uvm", "slow_ms", 0);
	end_cast(&cast);
	load();
	SET("enabled", 1);
	CHECK(all_spaces_gone());
}

static void many_rounds(void)
{
	for (int i = 0; i < 100; i++) {
		rmmod("mps_guard");
		load();
		if (i % 10 == 0) {
			struct cast cast;

			SET("enabled", 1);
			cast = start_cast(true);
			CHECK(fault(&cast, FAR, ADDRESS).cancels != 1);
			end_cast(&cast);
		}
	}
	SET("enabled", 1);
	CHECK(all_spaces_gone());
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

static void driver_cannot_leave_first(void)
{
	CHECK(syscall(SYS_delete_module, "nvidia_uvm", 0) != 0 && errno == EWOULDBLOCK);
}

static void refuses_without_anchors(void)
{
	rmmod("mps_guard");
	rmmod("nvidia_uvm");
	insmod("/mps_guard.ko", "", ENODEV);
	insmod("/no_cancel.ko", "", 0);
	insmod("/mps_guard.ko", "", ENOENT);
	rmmod("nvidia_uvm");
	insmod("/no_sparse.ko", "", 0);
	insmod("/mps_guard.ko", "", ENOENT);
	rmmod("nvidia_uvm");
}

static void run(const char *name, void (*test)(void))
{
	test_name = name;
	test_ok = true;
	test();
	passed += test_ok;
	failed += !test_ok;
	printf("%s %s\n", test_ok ? "ok" : "FAILED", name);
	fflush(stdout);
}

#define RUN(test) run(#test, test)

int main(void)
{
	test_name = "load";
	insmod("/nvidia_uvm.ko", "", 0);
	load();
	RUN(off_by_default);
	RUN(held_sunk_ended);
	RUN(acknowledged_is_not_killed);
	RUN(other_reasons_pass);
	RUN(not_a_client_passes);
	RUN(window_halves_beside_a_neighbour);
	RUN(no_room_passes);
	RUN(storm_ends_in_the_budget);
	RUN(deadline_passes);
	RUN(null_page);
	RUN(observe_only_records);
	RUN(many_holders);
	RUN(client_leaves_in_the_middle);
	RUN(ring_overflow_is_counted);
	RUN(bad_words_are_refused);
	RUN(off_switch);
	RUN(driver_cannot_leave_first);
	RUN(unload_while_held);
	RUN(many_rounds);
	RUN(refuses_without_anchors);
	printf("guard: %d passed, %d failed\n", passed, failed);
	return failed != 0;
}
