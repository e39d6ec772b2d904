/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests inside the virtual machine work with: modules and their parameters,
 * /dev/mps_guard, and a cast of processes that play client and MPS server on the shim's address
 * spaces.
 */
#ifndef STAGE_H
#define STAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>

#include "../../uapi/mps_guard.h"
#include "../shim/shim.h"

#define FAR 0x7f0000000000ull
#define DEADLINE_MS 20000 /* long: the machine that emulates this one may have other work */
enum { ADDRESS = 1, PERMISSIONS = 2, FAULT_TYPE = 3, MEMORY = 4, INTERNAL = 5 };
enum {
	OBSERVE = 2,
	LATE = 4,
	HOLDS = 5,
	WINDOWS = 6,
	NULL_PAGE = 9,
	REPEATS = 10,
	RATE = 11,
	NO_OWNER = 12,
	SCOPE = 13,
	NO_ROOM = 14,
	ASLEEP = 15
};

struct test {
	const char *name;
	void (*run)(void);
};

/* One table a file; each ends with an entry without a name. */
extern const struct test shim_tests[], fault_tests[], driver_tests[], storm_tests[], measurement[],
	life_tests[], device_tests[], load_tests[], stress_tests[], control_tests[];
#define TEST(function)              \
	{                           \
#function, function \
	}

extern const char *test_name;
extern bool test_ok;

void not_true(int line, const char *what);
#define CHECK(what)                                \
	do {                                       \
		if (!(what))                       \
			not_true(__LINE__, #what); \
	} while (0)

void insmod(const char *path, const char *args, int expected);
int rmmod(const char *name); /* 0 or errno */
void set_in(const char *module, const char *parameter, unsigned int value);
#define SET(parameter, value) set_in("mps_guard", parameter, value)
#define SHIM(parameter, value) set_in("nvidia_uvm", parameter, value)
/* Never kills, lets go quickly, taught the shim's first GPU; off, but for what `more` says. */
void load_guard(const char *more);

int tell(const char *line); /* 0 or errno */
int tell_about(const char *verb, unsigned long long number);
int listen_events(void); /* a descriptor that has read what there was */
struct mps_guard_event wait_event(int fd, unsigned int kind, int ms); /* kind 0: none came */

struct cast {
	pid_t client, server;
	int orders, answers; /* pipes to the client */
};

struct order {
	enum { FAULT, RANGE, EXTERNAL, MAP, STATS, REGISTER, FORK, EXEC, LEAVE, BOTH_GPUS } verb;
	struct shim_fault fault, second;
	struct shim_range range;
	struct shim_stats stats;
};

struct cast start_cast(bool with_server);
struct cast start_cast_of(uid_t uid, bool with_server);
void end_cast(struct cast *cast);
void give(struct cast *cast, struct order order);
struct order
answer_of(struct cast *cast); /* all ones when the client ended before it could answer */
struct order ask(struct cast *cast, struct order order);
struct shim_fault fault(struct cast *cast, uint64_t va, uint32_t reason);
struct shim_fault storm(struct cast *cast, uint64_t va, uint32_t pages, uint64_t stride);
struct shim_stats stats_of(struct cast *cast);
struct shim_stats all_stats(void); /* what is not of one address space */
int shown(const char *parameter); /* of the guard, a number */
bool alive(pid_t pid);
bool ended_by(pid_t pid, int signal_number); /* within seconds */
unsigned long long spaces_alive(void);
bool all_spaces_gone(void); /* within seconds */
uint64_t now_ms(void);

#endif
