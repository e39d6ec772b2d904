/* The supervisor of one task: what it knows, and the files that work on it.
 *
 * loop.c waits for news and turns them into events, orders.c those of the agent; transitions.c says
 * what an event means; actions.c does it; ending.c ends processes; reports.c tells the agent; say.c
 * is below them all. One thread, one record, no allocation.
 */
#ifndef MPSR_SUPERVISOR_H
#define MPSR_SUPERVISOR_H

#include "agent.h"
#include "child.h"
#include "container_check.h"
#include "dying.h"
#include "ending.h"
#include "helpers.h"
#include "last_call.h"
#include "ranks.h"
#include "task.h"
#include "transitions.h"

#include <signal.h>

/* Milliseconds. agent_wait and verdict_wait are docs/reference/protocols.md §5 and §6. */
enum {
    AGENT_WAIT_MS = 5000,     /* for an agent, before the task starts without one */
    PLACE_WAIT_MS = 30000,    /* for the answer of an agent that is there: it may have to start a
                                 server (10 + 10 s) */
    VERDICT_WAIT_MS = 10000,  /* for a verdict, before a failure is passed on */
    RECONNECT_MS = 100,       /* between two tries for a lost agent, at first */
    RECONNECT_SLOW_MS = 2000, /* later: an agent that stays away is not to cost a core */
    HOLD_MAX_MS = 10000,      /* the longest that an agent may have a task stay after its end */
    TICK_MS = 250,            /* between two looks while a deadline is set: have we been stopped? */
    AGENT_FLAPS = 20,         /* connections lost before the task had a place: no agent, then */
    TIMES_MAX_MS = 86400000,  /* a day: more is no time that an admin means */
};
static const long WINDOW_MAX_MS = 366L * 86400000; /* the same for a window of retries: a year */

/* Milliseconds, the admin's choice (mpsr.yaml): the agent says them with every `place`. Without an
 * agent no verdict comes, and none is needed. */
struct times {
    long grace;   /* an unmodified program has to end by itself (recovery.grace) */
    long restore; /* to the first step after a recovery (recovery.restore_timeout) */
    long requeue; /* to spill; twice that for Slurm to end the job (recovery.requeue_timeout) */
    long window; /* without a recovery that gives a retry back (recovery.retries_window); 0: none */
};

enum {
    REPORT_TEXT = 512 /* with each byte as %XX it fits what the agent takes of us */
};

enum {
    RETIRED = 8
}; /* old processes on their way out at once; an older one is then killed without delay */

struct order {
    char incident[MPSR_LEASE_WORD];
    char action[32];
    char color[MPSR_VALUE_BYTES];
    char pipe[MPSR_LEASE_PATH];
    char reason[MPSR_LEASE_PATH];
    long long told_us; /* when it came */
};

/* What the program reported, kept until a verdict has come: sent again to an agent that was
 * restarted. */
struct report {
    char cuda[MPSR_LEASE_WORD], call[MPSR_LEASE_WORD], seq[MPSR_VALUE_BYTES], text[REPORT_TEXT];
};

struct supervisor {
    struct task task;
    struct agent agent;
    enum state state;
    struct child active, standby, retired[RETIRED];
    struct keeper keeper;
    struct spiller spiller;
    struct dying dying;
    struct last_call last_call;
    struct order order;
    struct report report;
    long asked; /* questions to the agent so far to end clients */
    struct sight sight;
    struct ranks ranks;
    char pipe[MPSR_LEASE_PATH]; /* of the server in use */
    char color[MPSR_VALUE_BYTES];
    char spare_color[MPSR_VALUE_BYTES],
        spare_pipe[MPSR_LEASE_PATH]; /* for a standby; empty: none */
    char log[2]
            [MPSR_LEASE_PATH]; /* where the job's recovery log may lie, once the agent has told */
    bool recovering;           /* an order was carried out, the first step has not been made */
    bool failed;               /* the verdict was `fail`: an exit status of 0 becomes 1 */
    bool session;              /* the program has opened a session: kept state may exist */
    int exit_status;           /* raw, of the active process that has gone */
    pid_t exit_pid;
    int retries;          /* recoveries, less those that time without any has made good */
    long long retried_at; /* the last one that still counts */
    int flaps;            /* connections lost before there was a place */
    struct times times;
    long long hold_until; /* the agent has asked us to stay so long after the end; 0: it has not */
    long long deadline;   /* of the state; 0: none */
    long long looked_at;  /* when the loop last woke; 0: never */
    long long connect_at; /* next try for an agent; 0: connected */
    long long lost_at;
    sigset_t told; /* signals that Slurm has sent to us, and so to the program */
};

/* say.c */
long long now_ms(void);
long long now_us(void);
/* One line on standard error. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same on standard error and in the job's recovery log, as an agent would have it there. */
void tell_user(const struct supervisor *self, const char *text);

/* clock.c */
/* The state was entered: its time begins. */
void clock_enter(struct supervisor *self);
/* Milliseconds until the loop must look again; -1: whenever there is news. */
int clock_next(struct supervisor *self);
void clock_woke(struct supervisor *self);
/* Time that went well gives retries back. */
void retries_decay(struct supervisor *self);
/* One line in the job's recovery log, at the first of its places that can be written, or else on
 * standard error. */
void recovery_log(const struct supervisor *self, const char *line);
/* The same for programs, one JSON object, in the file beside it. */
void recovery_record(const struct supervisor *self, const char *line);
/* The agent's word `log`: where the log may lie, and what is to be written there. */
void log_of_agent(struct supervisor *self, const struct words *words);

/* loop.c */
_Noreturn void supervise(struct supervisor *self, int signals);

/* orders.c */
void read_agent(struct supervisor *self);
void look_for_agent(struct supervisor *self);

/* actions.c */
void happen(struct supervisor *self, enum event event);
void start_standby(struct supervisor *self);
_Noreturn void finish(struct supervisor *self, int status);

/* reports.c: messages to the agent */
void report_hello(struct supervisor *self);
void report_process(struct supervisor *self, const char *verb, const struct child *child);
void report_ranks(struct supervisor *self);
void report_fault(struct supervisor *self, const struct child *child, const struct report *report);
void report_exit(struct supervisor *self, const char *role, pid_t pid, int status, bool told,
                 bool ours);
void report_stepped(struct supervisor *self, const char *seq, const char *at);
void report_rung_failed(struct supervisor *self, const char *rung, const char *reason);
void report_spilled(struct supervisor *self);
void report_keeper(struct supervisor *self, const char *state);

#endif
