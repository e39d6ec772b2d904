/* The client hook in the environment of a program (client/client.c). */
#ifndef MPSR_HOOK_H
#define MPSR_HOOK_H

#include "task.h"

/* Where a dying process connects, and the library: for a session to load, and with
 * --mps-endings=safe for every process (LD_PRELOAD). A library that cannot be seen here is not
 * named: the loader would complain in each program. */
void hook_environment(const struct task *task);

#endif
