// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guard against the shim, inside a virtual machine: run by its init, static. Prints a line a
 * test (ok or FAILED, name, milliseconds) and the count last; what was not true stands above it.
 */
#include "stage.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned int passed, failed;

static void run(const struct test *tests)
{
	for (; tests->name; tests++) {
		uint64_t began = now_ms();

		test_name = tests->name;
		test_ok = true;
		tests->run();
		passed += test_ok;
		failed += !test_ok;
		printf("%s %s %llu\n", test_ok ? "ok" : "FAILED", tests->name,
		       (unsigned long long)(now_ms() - began));
		fflush(stdout);
	}
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	test_name = "load";
	insmod("/nvidia_uvm.ko", "", 0);
	run(control_tests);
	if (getenv("control")) /* that one alone, as often as it says: control=N for the kernel */
		return failed != 0;
	test_name = "load";
	if (getenv("storms")) { /* the measurement alone: storms=N */
		load_guard("");
		run(measurement);
		return failed != 0;
	}
	run(shim_tests);
	load_guard("");
	run(fault_tests);
	run(driver_tests);
	run(storm_tests);
	run(measurement);
	run(life_tests);
	run(device_tests);
	run(stress_tests);
	run(load_tests);
	printf("guard: %u passed, %u failed\n", passed, failed);
	return failed != 0;
}
