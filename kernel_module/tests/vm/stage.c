// SPDX-License-Identifier: GPL-2.0-only
/*
 * See stage.h. Every actor keeps only the descriptors of its part: one of /dev/mps_guard left open
 * would keep the module in use, one of the shim would make the guard find another holder. Waits are
 * bounded; nothing sleeps without a condition.
 */
#define _GNU_SOURCE
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 5000

const char *test_name;
bool test_ok;

void not_true(int line, const char *what)
{
	printf("  %s:%d: not true: %s\n", test_name, line, what);
	test_ok = false;
}

uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ------------------------------------------------------------------ modules */

void insmod(const char *path, const char *args, int expected)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int error = syscall(SYS_finit_module, fd, args, 0) ? errno : 0;

	if (error != expected) {
		printf("  %s: insmod %s: %s\n", test_name, path, strerror(error));
		test_ok = false;
	}
	close(fd);
}

int rmmod(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0;
}

void set_in(const char *module, const char *parameter, unsigned int value)
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

int shown(const char *parameter)
{
	char path[128], text[16] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/module/mps_guard/parameters/%s", parameter);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return atoi(text);
}

void load_guard(const char *more)
{
	char args[128];

	snprintf(args, sizeof(args), "kill_ms=0 linger_ms=20 rate=100000 deadline_ms=%d %s",
		 DEADLINE_MS, more);
	insmod("/mps_guard.ko", args, 0);
	CHECK(tell("gpu 5a5a5a5a000102030405060708090a0b") == 0);
}

/* ------------------------------------------------------------------ the device */

int tell(const char *line)
{
	int fd = open("/dev/mps_guard", O_RDWR | O_CLOEXEC);
	int error = fd < 0 || write(fd, line, strlen(line)) < 0 ? errno : 0;

	close(fd);
	return error;
}

int tell_about(const char *verb, unsigned long long number)
{
	char line[64];

	snprintf(line, sizeof(line), "%s %llu\n", verb, number);
	return tell(line);
}

int listen_events(void)
{
	struct mps_guard_event event;
	int fd = open("/dev/mps_guard", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	while (read(fd, &event, sizeof(event)) == sizeof(event))
		;
	return fd;
}

struct mps_guard_event wait_event(int fd, unsigned int kind, int ms)
{
	uint64_t end = now_ms() + (uint64_t)ms;
	struct mps_guard_event event;

	for (;;) {
		struct pollfd poller = { .fd = fd, .events = POLLIN };
		uint64_t now;

		while (read(fd, &event, sizeof(event)) == sizeof(event))
			if (event.kind == kind)
				return event;
		now = now_ms();
		if (now >= end || poll(&poller, 1, (int)(end - now)) < 0)
			return (struct mps_guard_event){ 0 };
	}
}

/* ------------------------------------------------------------------ the cast */

struct half {
	int uvm;
	struct shim_fault *fault;
};

static void *one_gpu(void *data)
{
	struct half *half = data;

	ioctl(half->uvm, SHIM_FAULT, half->fault);
	return NULL;
}

static void both_gpus(int uvm, struct order *order)
{
	struct half second = { uvm, &order->second };
	pthread_t thread;

	if (pthread_create(&thread, NULL, one_gpu, &second))
		abort();
	ioctl(uvm, SHIM_FAULT, &order->fault);
	pthread_join(thread, NULL);
}

static void wait_for_ever(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() != 1) /* it may have died before it was asked for */
		pause();
	_exit(0);
}

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
		case EXTERNAL:
			ioctl(uvm, SHIM_EXTERNAL, &order.range);
			break;
		case MAP:
			ioctl(uvm, SHIM_MAP, &order.range);
			break;
		case STATS:
			ioctl(uvm, SHIM_STATS, &order.stats);
			break;
		case REGISTER:
			ioctl(uvm, SHIM_REGISTER, order.fault.gpu);
			break;
		case BOTH_GPUS:
			both_gpus(uvm, &order);
			break;
		case FORK:
			if (fork() == 0) {
				close(orders);
				close(answers);
				wait_for_ever();
			}
			break;
		case EXEC: /* its descriptor of the address space closes, as libcuda's does */
			fcntl(uvm, F_SETFD, FD_CLOEXEC);
			execl("/bin/busybox", "sleep", "60", NULL);
			_exit(1);
		case LEAVE:
			_exit(0);
		}
		if (write(answers, &order, sizeof(order)) != sizeof(order))
			_exit(1);
	}
	_exit(0);
}

static void keep_only(int first, int second, int third)
{
	for (int fd = 3; fd < 64; fd++)
		if (fd != first && fd != second && fd != third)
			close(fd);
}

/* The client's own name is set before its first fault asks for it; this waits for the server's. */
static void wait_for_server(pid_t server)
{
	for (int i = 0; i < PATIENCE_MS; i++) {
		char path[64], comm[32] = "";
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/comm", server);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (read(fd, comm, sizeof(comm) - 1) < 0)
			abort();
		close(fd);
		if (!strncmp(comm, "nvidia-cuda-mps", 15))
			return;
		usleep(1000);
	}
	abort();
}

struct cast start_cast(bool with_server)
{
	return start_cast_of(0, with_server);
}

struct cast start_cast_of(uid_t uid, bool with_server)
{
	int to[2], from[2], uvm = open("/dev/shim_uvm", O_RDWR);
	struct cast cast = { 0 };

	if (uvm < 0 || pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		abort();
	if (with_server) {
		cast.server = fork();
		if (cast.server == 0) {
			prctl(PR_SET_NAME, "nvidia-cuda-mps-server");
			keep_only(uvm, -1, -1);
			wait_for_ever();
		}
	}
	cast.client = fork();
	if (cast.client == 0) {
		keep_only(uvm, to[0], from[1]);
		if (uid && (setgid(uid) || setuid(uid)))
			_exit(1);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "client");
		client_main(uvm, to[0], from[1]);
	}
	close(uvm);
	close(to[0]);
	close(from[1]);
	cast.orders = to[1];
	cast.answers = from[0];
	if (with_server)
		wait_for_server(cast.server);
	return cast;
}

void end_cast(struct cast *cast)
{
	close(cast->orders);
	close(cast->answers);
	if (cast->client)
		kill(cast->client, SIGKILL);
	if (cast->server)
		kill(cast->server, SIGKILL);
	if (cast->client)
		waitpid(cast->client, NULL, 0);
	if (cast->server)
		waitpid(cast->server, NULL, 0);
	*cast = (struct cast){ .orders = -1, .answers = -1 };
}

void give(struct cast *cast, struct order order)
{
	if (write(cast->orders, &order, sizeof(order)) < 0 && errno != EPIPE) /* EPIPE: ended */
		abort();
}

struct order answer_of(struct cast *cast)
{
	struct order order;

	if (read(cast->answers, &order, sizeof(order)) != sizeof(order))
		memset(&order, 0xff, sizeof(order));
	return order;
}

struct order ask(struct cast *cast, struct order order)
{
	if (write(cast->orders, &order, sizeof(order)) != sizeof(order)) {
		memset(&order, 0xff, sizeof(order));
		return order;
	}
	return answer_of(cast);
}

struct shim_fault fault(struct cast *cast, uint64_t va, uint32_t reason)
{
	struct order order = { .verb = FAULT, .fault = { .va = va, .reason = reason } };

	return ask(cast, order).fault;
}

struct shim_fault storm(struct cast *cast, uint64_t va, uint32_t pages, uint64_t stride)
{
	struct shim_fault fault = { .va = va, .reason = ADDRESS, .pages = pages, .stride = stride };

	return ask(cast, (struct order){ .verb = FAULT, .fault = fault }).fault;
}

struct shim_stats stats_of(struct cast *cast)
{
	return ask(cast, (struct order){ .verb = STATS }).stats;
}

bool alive(pid_t pid)
{
	int status;

	return pid > 0 && waitpid(pid, &status, WNOHANG) == 0;
}

bool ended_by(pid_t pid, int signal_number)
{
	uint64_t end = now_ms() + PATIENCE_MS;
	int status = 0;

	while (now_ms() < end) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFSIGNALED(status) && WTERMSIG(status) == signal_number;
		usleep(1000);
	}
	return false;
}

struct shim_stats all_stats(void)
{
	int fd = open("/dev/shim_uvm", O_RDWR | O_CLOEXEC);
	struct shim_stats stats = { 0 };

	ioctl(fd, SHIM_STATS, &stats);
	close(fd);
	return stats;
}

unsigned long long spaces_alive(void)
{
	return all_stats().alive - 1; /* without our own */
}

bool all_spaces_gone(void)
{
	uint64_t end = now_ms() + PATIENCE_MS;

	while (now_ms() < end) {
		if (spaces_alive() == 0)
			return true;
		usleep(1000);
	}
	return false;
}
