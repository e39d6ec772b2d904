/* Which task this is, and what it may use: from the environment, the lease and the options. Read
 * once, never changed.
 *
 * Relies on the plugin's variables where there is a plugin, and on Slurm's own otherwise. What is
 * missing or not to be trusted is explained in one line; the caller refuses to run.
 */
#ifndef MPSR_TASK_H
#define MPSR_TASK_H

#include "program.h"
#include "shared/lease.h"
#include "shared/visible.h"

#include <stdbool.h>

struct task {
    struct mpsr_lease lease;
    struct mpsr_options options;
    char wire[MPSR_WIRE_MAX_BYTES + 1]; /* the options, serialized */
    long step, rank, local; /* rank: a number of our own when another supervisor has the task's */
    int given;              /* GPUs that Slurm has given to this task */
    struct mpsr_visible visible; /* those that its programs see */
    int gpu;                     /* the first of them: index into lease.gpu */
    char **command;              /* NULL-terminated; command[0] is looked up on PATH */
    char job_dir[MPSR_LEASE_PATH];
    char keeper[MPSR_LEASE_PATH]; /* socket path */
    char spill[MPSR_LEASE_PATH];  /* directory of the spilled state; empty: there is none */
    char token[33], standby_token[33];
    char program[PROGRAM_DIGEST]; /* of the command: whose state it is, if no name is given */
    char strike[PROGRAM_DIGEST];  /* of the program: whose faults they are */
};

enum { TASK_OK = 0 };

/* 0, or the exit status to end with after `why` has been said. */
int task_read(struct task *task, int count, char **arguments, char why[MPSR_WHY_BYTES]);

#endif
