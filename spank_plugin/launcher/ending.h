/* The one way in which the supervisor ends processes: their MPS clients first, then SIGKILL.
 *
 * NVIDIA's MPS document leaves undefined what a client that ends with work in flight does to its
 * neighbours; terminate_client before it hurts nobody. The control daemon is out of our reach (a
 * container hides it, another user may own it), so the agent asks it: `end` with the processes,
 * `ended` when it has answered (docs/reference/protocols.md §5). We wait ENDING_MS for that, off
 * the path of any recovery, and not at all for a context that is dead already or an agent that is
 * not there. tests/unit/test_one_way_to_end.py looks for any other kill().
 */
#ifndef MPSR_ENDING_H
#define MPSR_ENDING_H

#include "child.h"

struct supervisor;

enum {
    ENDING_MS = 1000,    /* for the answer; then the process goes all the same */
    RETIRE_MS = 100,     /* from `retire` to SIGKILL: time for one _exit */
    SUPERSEDED_MS = 100, /* that a faulted process may stay beside the one promoted: its end
                            would take time from the first step, but its server waits for it */
    HEIR_MS = 3000,      /* the same when the keeper is not there: a new one starts in some 50 ms */
    WIPE_MS = 5000,      /* for kept state to be overwritten: a context takes most of a second */
    FAREWELL_MS = 1000,  /* for killed processes to be gone before we are */
    ENDING_LOOK_MS = 20, /* between two looks for the end of processes that are not ours to reap */
};

/* Have the agent end the clients of these processes on a server, and unless they are `alone` of
 * what they have started: the number of the question, which `ended` will name; 0: there is nobody
 * to ask. */
long ending_ask(struct supervisor *self, const struct family *family, const char *color,
                bool alone);
/* Ask the active process to go, and end it soon; it stays the active one until it is reaped. */
void ending_begin(struct supervisor *self, struct child *child);
/* The same, and it is active or standby no more. */
void retire(struct supervisor *self, struct child *child);
/* A helper that may be a client: it is retired like any other process. */
void retire_spiller(struct supervisor *self);
/* A process whose place another has just taken: it may stay a moment. */
void supersede(struct supervisor *self, struct child *old);
/* The keeper has died: an old process may have to give it the kept state anew. */
void keep_superseded(struct supervisor *self);
/* Whoever has taken over has made the first step. */
void way_is_free(struct supervisor *self);

/* End those whose time has come. */
void ending_due(struct supervisor *self);
/* The agent has answered. */
void ending_answered(struct supervisor *self, long number);
/* One that was to go has been reaped: what it leaves behind goes too. */
void ending_reaped(struct supervisor *self, pid_t pid);
/* All that is left of the task; waits for it. */
void ending_all(struct supervisor *self);

#endif
