// SPDX-License-Identifier: GPL-2.0-only
/*
 * mps_guard: a fatal MMU fault of one MPS client ends that client only.
 *
 * Hold, sink, end: the driver's cancel of the fault is held back (the fault repeats), a sparse
 * mapping is put under the address, the client is ended by the node agent. If any of it fails
 * within the deadline the next cancel goes through: the worst case is today's. Both hooked
 * functions run on fatal faults only, so normal running costs nothing.
 *
 * Relies on names of functions of nvidia-uvm, found at load; refuses to load when one is missing or
 * cannot be traced. It is off until `enabled` is set. It holds a reference on nvidia-uvm: unload
 * mps_guard first.
 */
#include <linux/module.h>

#include "mps_guard.h"

static int __init mg_init(void)
{
	struct mg_limits limits = mg_limits_now();
	int error = mg_driver_find();

	if (error)
		return error;
	error = mg_worker_init();
	if (error)
		goto put_driver;
	error = mg_entry_init();
	if (error)
		goto worker_stop;
	error = mg_sink_init();
	if (error)
		goto entry_exit;
	error = mg_device_init();
	if (error)
		goto sink_exit;
	error = mg_hooks_arm();
	if (error)
		goto device_exit;
	pr_info("mps_guard: armed, %s\n", limits.observe   ? "observing"
					  : limits.enabled ? "enabled"
							   : "off until enabled=1");
	return 0;

device_exit:
	mg_device_exit();
	mg_ring_exit();
sink_exit:
	mg_sink_exit();
entry_exit:
	mg_entry_exit();
worker_stop:
	mg_worker_stop();
put_driver:
	mg_driver_put();
	return error;
}

/*
 * Fault hooks first: from then on every cancel passes, and what was held passes at its next replay.
 * The other hooks stay until the workers have ended, who rely on them.
 */
static void __exit mg_exit(void)
{
	mg_hooks_let_pass();
	mg_worker_stop();
	mg_sink_exit();
	mg_entry_exit();
	mg_hooks_disarm();
	mg_device_exit();
	mg_ring_exit();
	mg_driver_put();
}

module_init(mg_init);
module_exit(mg_exit);
MODULE_LICENSE("GPL v2");
MODULE_DESCRIPTION("Isolates fatal MMU faults of one MPS client from its neighbours");
MODULE_VERSION("0.2.0");
