/* One process of the task: the active one, its standby, or one that is on its way out.
 *
 * A program finds in its environment what docs/reference/protocols.md §7 promises, on its standard
 * streams what Slurm gave us (a standby: /dev/null, and the real ones parked), and its signals as
 * Slurm had set them.
 */
#ifndef MPSR_CHILD_H
#define MPSR_CHILD_H

#include "family.h"
#include "packet.h"
#include "task.h"

struct child {
    pid_t pid; /* 0: none */
    unsigned long long starttime;
    int socket; /* ours; -1: none */
    const char *role;
    char color[MPSR_VALUE_BYTES];
    bool session;         /* has said so: can be promoted and restored */
    bool ready;           /* a standby that waits */
    bool faulted;         /* has reported a fault: its context is dead, and has no work */
    bool told_to_go;      /* by us: its exit status says nothing about the task */
    bool reaped;          /* it has gone, and what it has started has not */
    struct family family; /* gathered when it is to go */
    long long kill_at;    /* milliseconds of the loop's clock; 0: not to be killed */
    long asked;           /* the agent, to end its clients first: which question; 0: not yet */
};

/* Start the program; `partition` is its CUDA_MPS_SM_PARTITION, mostly empty. 0, or the errno of
 * what failed: then nothing runs. */
int child_start(struct child *child, const struct task *task, const char *role, const char *color,
                const char *pipe, const char *partition);

void child_say(const struct child *child, const struct packet *packet);

/* Forget it (it has been reaped). */
void child_forget(struct child *child);

/* The environment of everything that is to reach a server: pipe directory, GPUs, SM
 * partition, limits. */
void child_gpu_environment(const struct task *task, const char *pipe, const char *partition);

#endif
