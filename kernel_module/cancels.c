// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which of the driver's functions cancel a fault? Each generation of GPU has one, and which of them
 * a GPU uses cannot be asked without the driver's own types. So the guard is armed only where all
 * of them are known: one for the older generations, one for Hopper's and later, and no other. With
 * one that is left out, the GPUs that use it would look guarded and not be so.
 */
#include <linux/module.h>
#include <linux/string.h>

#include "mps_guard.h"

#define PREFIX "uvm_hal_"
#define SUFFIX "_cancel_faults_va"

static const char *const known[MG_CANCELS] = {
	"uvm_hal_volta_cancel_faults_va", /* Volta to Ada, until driver 590 */
	"uvm_hal_turing_cancel_faults_va", /* the same, from 595 on */
	"uvm_hal_hopper_cancel_faults_va",
};

static char covered[64];
module_param_string(cancels, covered, sizeof(covered), 0444);
MODULE_PARM_DESC(cancels, "GPU generations whose cancel function is hooked (read only)");

/* Of a symbol that cancels. One with more behind its name is a stub, or a part of it. */
static bool is_known(const char *name, void *data)
{
	size_t length = strlen(name);
	int i;

	if (strncmp(name, PREFIX, sizeof(PREFIX) - 1) || length < sizeof(SUFFIX) ||
	    strcmp(name + length - (sizeof(SUFFIX) - 1), SUFFIX))
		return true;
	for (i = 0; i < MG_CANCELS; i++)
		if (!strcmp(name, known[i]))
			return true;
	*(const char **)data = name;
	return false;
}

static void show(const char *name)
{
	size_t length = strlen(name) - (sizeof(PREFIX) - 1) - (sizeof(SUFFIX) - 1);
	size_t at = strlen(covered);

	snprintf(covered + at, sizeof(covered) - at, "%s%.*s", at ? " " : "", (int)length,
		 name + sizeof(PREFIX) - 1);
}

int mg_cancels_find(const char *names[MG_CANCELS])
{
	const char *stranger;
	int i, count = 0;

	if (!mg_driver_symbols(is_known, &stranger)) {
		pr_err("mps_guard: driver: unknown cancel function: %s\n", stranger);
		return -EOPNOTSUPP;
	}
	for (i = 0; i < MG_CANCELS; i++)
		if (mg_symbol(known[i]))
			names[count++] = known[i];
	if (!mg_symbol(known[2]))
		return mg_missing(known[2]);
	if (count < 2)
		return mg_missing(
			"uvm_hal_volta_cancel_faults_va or uvm_hal_turing_cancel_faults_va");
	covered[0] = '\0';
	for (i = 0; i < count; i++)
		show(names[i]);
	return count;
}
