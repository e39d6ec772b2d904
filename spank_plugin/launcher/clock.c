/* The supervisor's deadlines: how long each state waits, when the loop must look again, and that
 * time in which we or the program are stopped counts for none of them.
 *
 * A job that is suspended (scontrol suspend, PreemptMode=SUSPEND or GANG) stands still with all its
 * processes, by SIGSTOP or by a frozen cgroup, and nobody is told. We see it by the gap: while a
 * deadline is set we look every TICK_MS, so whoever looks later than that has been stopped. A
 * program that is stopped alone (a debugger, kill -STOP) is seen in /proc. Errs by one TICK_MS at
 * most for each stop; a machine too busy to run us in time only makes deadlines later.
 */
#include "family.h"
#include "supervisor.h"

enum {
    SLACK_MS = 250, /* later than that is no ordinary delay of the scheduler */
};

static long patience(const struct supervisor *self) {
    const struct times *times = &self->times;
    switch (verdict_patience[self->state]) {
    case FOR_PROGRAM:
        break;
    case FOR_PLACE:
        return AGENT_WAIT_MS;
    case FOR_VERDICT:
        return self->agent.ever ? VERDICT_WAIT_MS : 0; /* without any agent nobody can answer */
    case FOR_GRACE:
        return times->grace;
    case FOR_KILL: /* the agent gives up its rung before that, and has another way or a reason */
        return times->grace + times->restore + VERDICT_WAIT_MS;
    case FOR_SPILL:
        return times->requeue;
    case FOR_SLURM:
        return 2 * times->requeue;
    case FOR_ACCOUNT:
        return HOLD_MAX_MS;
    }
    return 0;
}

void clock_enter(struct supervisor *self) {
    bool program = verdict_patience[self->state] == FOR_PROGRAM;
    self->deadline = program ? 0 : now_ms() + patience(self);
}

/* What passes time while we wait, and must not when nobody can act. */
static bool pending(const struct supervisor *self) {
    bool found = self->deadline || self->active.kill_at;
    for (int index = 0; index < RETIRED; index++)
        found |= self->retired[index].kill_at != 0;
    return found;
}

int clock_next(struct supervisor *self) {
    long long next = pending(self) ? now_ms() + TICK_MS : -1, now = now_ms();
    const long long single[] = {
        self->deadline,
        self->connect_at,
        self->active.kill_at,
        dying_due(self),
        self->last_call.at,
        self->active.pid ? self->sight.look_at : 0,
        self->active.pid ? self->ranks.look_at : 0,
        self->keeper.pid && !self->keeper.up ? self->keeper.look_at : 0,
    };
    for (size_t index = 0; index < sizeof(single) / sizeof(single[0]); index++)
        if (single[index] && (next < 0 || single[index] < next))
            next = single[index];
    for (int index = 0; index < RETIRED; index++)
        if (self->retired[index].kill_at && (next < 0 || self->retired[index].kill_at < next))
            next = self->retired[index].kill_at;
    if (next < 0)
        return -1;
    return next <= now ? 0 : (int)(next - now);
}

static void later(long long *deadline, long long by) {
    if (*deadline)
        *deadline += by;
}

/* The process that the state's deadline is set for; 0: it is set for the agent or for Slurm. */
static pid_t awaited(const struct supervisor *self) {
    switch (self->state) {
    case RUNNING:
    case ARMED:
    case ENDING:
        return self->active.pid;
    case SPILLING:
        return self->spiller.pid;
    default:
        return 0;
    }
}

void clock_woke(struct supervisor *self) {
    long long now = now_ms(), passed = now - self->looked_at;
    bool waits = pending(self) && self->looked_at;
    self->looked_at = now;
    if (!waits)
        return;
    if (passed > TICK_MS + SLACK_MS) {
        later(&self->deadline, passed - TICK_MS);
        later(&self->active.kill_at, passed - TICK_MS);
        for (int index = 0; index < RETIRED; index++)
            later(&self->retired[index].kill_at, passed - TICK_MS);
    } else if (self->deadline && awaited(self) && family_stopped(awaited(self)))
        later(&self->deadline, passed);
}

void retries_decay(struct supervisor *self) {
    while (self->retries && self->times.window &&
           now_ms() - self->retried_at >= self->times.window) {
        self->retries--;
        self->retried_at += self->times.window;
    }
}
