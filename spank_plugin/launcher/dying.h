/* Processes of the task that a signal is about to end: the client hook (client/client.c) connects,
 * and waits until we hang up. Until then the agent ends their MPS clients.
 *
 * Whoever connects is who the kernel says, of our own user or nobody. A peer waits as long as the
 * agent takes, at most DYING_MS, and not at all without an agent; a crowd beyond DYING is let go
 * at once.
 */
#ifndef MPSR_DYING_H
#define MPSR_DYING_H

#include "task.h"

enum {
    DYING = 32,      /* at once: all processes of a task get Slurm's SIGTERM */
    DYING_MS = 2000, /* as long as the hook waits itself */
};

struct dying {
    int listener; /* -1: none */
    char path[MPSR_LEASE_PATH];
    struct {
        int fd; /* 0: free */
        long asked;
        long long until;
    } of[DYING];
};

struct supervisor;

/* Listen; a job directory that cannot be written costs only this. */
void dying_listen(struct dying *dying, const struct task *task);
/* Take in who has connected. */
void dying_take(struct supervisor *self);
/* The agent has answered this question. */
void dying_answered(struct supervisor *self, long asked);
/* Let those go whose time is up; the next such time, 0: nobody waits. */
long long dying_due(struct supervisor *self);
void dying_close(struct dying *dying);

#endif
