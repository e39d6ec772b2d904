// SPDX-License-Identifier: GPL-2.0-only
/*
 * The control: does this emulator bear code that is patched on one processor while another runs it?
 * The guard is not there; the kernel's own function tracer is switched on and off on a function of
 * the shim that runs all the time, which is what loading and unloading the guard does. A machine
 * that stalls here would stall without us.
 */
#include "stage.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRACING "/sys/kernel/tracing/"
#define USUAL_ROUNDS "10"

static bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return ok;
}

static void *churn(void *data)
{
	volatile bool *stop = data;
	uintptr_t rounds = 0;

	for (; !*stop; rounds++)
		spaces_alive();
	return (void *)rounds;
}

static void tracer_alone_does_not_stall(void)
{
	const char *wanted = getenv("control");
	unsigned long rounds = strtoul(wanted ? wanted : USUAL_ROUNDS, NULL, 10);
	volatile bool stop = false;
	void *churned = NULL;
	pthread_t thread;

	CHECK(put(TRACING "set_ftrace_filter", "uvm_va_space_destroy"));
	if (pthread_create(&thread, NULL, churn, (void *)&stop))
		not_true(__LINE__, "thread");
	while (rounds--) {
		CHECK(put(TRACING "current_tracer", "function"));
		CHECK(put(TRACING "current_tracer", "nop"));
	}
	stop = true;
	pthread_join(thread, &churned);
	CHECK((uintptr_t)churned > 20);
	CHECK(put(TRACING "set_ftrace_filter", ""));
	CHECK(put(TRACING "trace", ""));
}

const struct test control_tests[] = {
	TEST(tracer_alone_does_not_stall),
	{ 0 },
};
