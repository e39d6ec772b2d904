// SPDX-License-Identifier: GPL-2.0-only
/*
 * Everything at once, from several processes: clients of several users that fault on two GPUs at
 * the same time, fork, exec, leave and are killed; the switches turned on and off; records read and
 * acknowledged; the module unloaded and loaded. It lasts as many seconds as the environment says
 * (stress=N on the kernel's command line).
 *
 * Nobody can say which fault is sunk then. What must hold: every fault comes to one end, sunk or
 * cancelled; records are in order and none is lost unsaid; at the end no address space is left and
 * the module isolates as before.
 */
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define USUAL_SECONDS "4"
#define LONGEST_MS 90000
#define ROLES 8

static uint64_t end_ms;
static volatile bool *had_enough; /* one for each role, shared by all */
static unsigned int seed;

static unsigned int dice(unsigned int sides)
{
	return (unsigned int)rand_r(&seed) % sides;
}

/* Until the time is over and everybody has done enough: a slow machine takes longer. */
static bool going_on(void)
{
	uint64_t now = now_ms();
	bool enough = true;

	for (int i = 0; i < ROLES; i++)
		enough = enough && had_enough[i];
	return now < end_ms || (!enough && now < end_ms + LONGEST_MS);
}

static int role_number;

static void enough_when(bool enough)
{
	had_enough[role_number] = enough;
}

/* While the module is away there is nothing to set. */
static void try_set(const char *parameter, const char *value)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/sys/module/mps_guard/parameters/%s", parameter);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	CHECK(write(fd, value, strlen(value)) > 0 || errno == ENODEV); /* it goes right now */
	close(fd);
}

static struct shim_fault somewhere(unsigned int gpu)
{
	return (struct shim_fault){ .va = FAR + ((uint64_t)dice(4) << 36) + ((uint64_t)gpu << 44),
				    .reason = dice(8) ? ADDRESS : PERMISSIONS,
				    .gpu = gpu };
}

static bool one_end(struct shim_fault seen)
{
	return seen.cancels + seen.served == 1;
}

/* What one client does in its life; how many faults it made whose end was seen. */
static unsigned int one_life(void)
{
	struct cast cast = start_cast_of(dice(3) * 1000, dice(8) != 0);
	struct order order = { .verb = BOTH_GPUS };
	unsigned int faults = 0;

	ask(&cast, (struct order){ .verb = REGISTER, .fault = { .gpu = 1 } });
	for (unsigned int left = 1 + dice(6); left; left--) {
		struct order seen;

		order.fault = somewhere(0);
		order.second = somewhere(1);
		give(&cast, order);
		if (dice(6) == 0) {
			kill(cast.client, SIGKILL);
			break;
		}
		seen = answer_of(&cast);
		if (seen.verb != BOTH_GPUS) /* ended by the module */
			break;
		CHECK(one_end(seen.fault) && one_end(seen.second));
		faults += 2;
		if (dice(4) == 0)
			ask(&cast, (struct order){ .verb = FORK });
	}
	switch (dice(4)) {
	case 0:
		give(&cast, (struct order){ .verb = EXEC });
		break;
	case 1:
		give(&cast, (struct order){ .verb = LEAVE });
		break;
	}
	end_cast(&cast);
	return faults;
}

static void client(void)
{
	unsigned int lives = 0, faults = 0;

	for (; going_on(); lives++) {
		faults += one_life();
		enough_when(lives > 3 && faults > 3);
	}
	CHECK(lives > 3 && faults > 3);
	printf("stress: client: %u lives, %u faults\n", lives, faults);
}

static void switches(void)
{
	static const char *const turns[][2] = {
		{ "enabled", "0" },	 { "enabled", "1" },   { "observe", "1" },
		{ "observe", "0" },	 { "kill_ms", "20" },  { "kill_ms", "0" },
		{ "deadline_ms", "2" },	 { "max_holds", "9" }, { "deadline_ms", "500" },
		{ "max_holds", "9999" }, { "rate", "1" },      { "rate", "100000" },
		{ "scope", "2" },	 { "scope", "0" },     { "linger_ms", "0" },
		{ "linger_ms", "20" },
	};
	unsigned int turned = 0;

	for (; going_on(); turned++) {
		const char *const *turn = turns[dice(sizeof(turns) / sizeof(*turns))];

		try_set(turn[0], turn[1]);
		if (dice(2)) /* most of the time it is on */
			try_set("enabled", "1");
		usleep(2000);
		enough_when(turned > 100);
	}
	printf("stress: %u turns of switches\n", turned);
}

/* Reads for a while; the module cannot leave meanwhile. How many records it read. */
static unsigned int read_some(void)
{
	int fd = open("/dev/mps_guard", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	struct mps_guard_event event, last = { 0 };
	unsigned int count = 0;

	for (unsigned int turns = dice(8); fd >= 0 && turns; turns--) {
		poll(&poller, 1, 10);
		while (read(fd, &event, sizeof(event)) == sizeof(event)) {
			uint64_t missed = event.dropped - last.dropped;

			CHECK(!count || event.sequence == last.sequence + 1 + missed);
			CHECK(event.time_ns >= last.time_ns);
			CHECK(event.version == MPS_GUARD_VERSION && event.size == sizeof(event));
			CHECK(event.kind != MPS_GUARD_SUNK || event.pid);
			count++;
			last = event;
			if (event.kind != MPS_GUARD_SUNK || dice(2))
				continue;
			dprintf(fd, "ack %llu", event.incident); /* it may be over by now */
		}
	}
	close(fd);
	return count;
}

static void reader(void)
{
	unsigned int records = 0;

	while (going_on()) {
		records += read_some();
		enough_when(records > 10);
		usleep(1000 * dice(40)); /* or the module could never be unloaded */
	}
	CHECK(records > 10);
	printf("stress: reader: %u records\n", records);
}

static void loader(void)
{
	unsigned int rounds = 0, refused = 0;

	while (going_on()) {
		int error = rmmod("mps_guard");

		CHECK(error == 0 || error == EWOULDBLOCK);
		if (error) {
			refused++;
			usleep(1000);
			continue;
		}
		load_guard("enabled=1");
		CHECK(tell("gpu 5b5a5a5a000102030405060708090a0b") == 0);
		enough_when(++rounds > 2);
		usleep(20000);
	}
	CHECK(rounds > 2);
	printf("stress: %u times unloaded, %u times refused\n", rounds, refused);
}

static pid_t start(void (*role)(void), int number)
{
	pid_t child;

	seed++;
	role_number = number;
	child = fork();
	if (child)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	role();
	fflush(stdout);
	_exit(test_ok ? 0 : 1);
}

static void everything_at_once(void)
{
	void (*const roles[ROLES])(void) = { client,   client, client, client,
					     switches, reader, reader, loader };
	pid_t children[ROLES];
	const char *seconds = getenv("stress");
	struct cast cast;

	end_ms = now_ms() + 1000 * strtoul(seconds ? seconds : USUAL_SECONDS, NULL, 10);
	fflush(stdout); /* or each of them would print it again */
	had_enough = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < ROLES; i++)
		children[i] = start(roles[i], i);
	for (int i = 0; i < ROLES; i++) {
		int status = 1;

		CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
	}
	CHECK(rmmod("mps_guard") == 0);
	load_guard("enabled=1");
	CHECK(all_spaces_gone());
	cast = start_cast(true);
	CHECK(fault(&cast, FAR, ADDRESS).served == 1);
	end_cast(&cast);
	CHECK(all_spaces_gone());
}

const struct test stress_tests[] = {
	TEST(everything_at_once),
	{ 0 },
};
