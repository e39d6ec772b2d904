/* What the supervisor does: one case per action of transitions.h. The state is not touched here:
 * the table names the next one.
 *
 * Guarantees: a process of ours is ended only by the order of a verdict or because the task ends;
 * the task's own exit status is passed on as it was; whatever ends us, processes and socket of the
 * helpers go first.
 */
#include "shared/text.h"
#include "signals.h"
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell(const struct child *child, const char *verb, const char *key, const char *value) {
    struct packet packet;
    packet_begin(&packet, verb);
    if (key)
        packet_text(&packet, key, value);
    child_say(child, &packet);
}

/* ---- ending */

_Noreturn void finish(struct supervisor *self, int status) {
    dying_close(&self->dying);
    ending_all(self);
    if (self->keeper.wanted || self->keeper.deaths)
        unlink(self->task.keeper);
    signals_exit_as(status);
}

/* ---- starting */

/* The job's SM partition on a colour's server; false after saying that it cannot be told. */
static bool partition_on(const struct task *task, const char *color,
                         char partition[MPSR_LEASE_WORD]) {
    bool told = mpsr_lease_partition(&task->lease, task->gpu, color, partition);
    if (!told)
        say("server: the job's SM partition on server %s of GPU %ld cannot be told", color,
            task->lease.gpu[task->gpu].minor);
    return told;
}

static bool start_active(struct supervisor *self) {
    char partition[MPSR_LEASE_WORD];
    if (!partition_on(&self->task, self->color, partition))
        finish(self, MPSR_EXIT_REFUSED << 8);
    int why = child_start(&self->active, &self->task, "active", self->color, self->pipe, partition);
    if (why) {
        say("%s: cannot be run: %s", self->task.command[0], strerror(why));
        finish(self, (why == ENOENT ? MPSR_EXIT_NOT_FOUND : MPSR_EXIT_NOT_EXECUTABLE) << 8);
    }
    report_process(self, "started", &self->active);
    if (!self->sight.began)
        sight_begin(&self->sight, now_ms());
    ranks_begin(&self->ranks, now_ms());
    return true;
}

void start_standby(struct supervisor *self) {
    char partition[MPSR_LEASE_WORD];
    if (self->standby.pid || !self->active.pid || !self->active.session || !*self->spare_color ||
        ranks_together(&self->ranks) ||
        !strcmp(self->spare_color, self->color) || /* it would die with the active one */
        !mpsr_options_on(&self->task.options, MPSR_OPTION_STANDBY) ||
        !partition_on(&self->task, self->spare_color, partition))
        return;
    int why = child_start(&self->standby, &self->task, "standby", self->spare_color,
                          self->spare_pipe, partition);
    if (why)
        say("standby: cannot be run: %s", strerror(why));
    else
        report_process(self, "started", &self->standby);
}

static bool start_alone(struct supervisor *self) {
    const struct mpsr_lease *lease = &self->task.lease;
    say("agent: does not answer: %s", lease->agent);
    if (!mpsr_lease_active(lease, self->task.gpu, self->color) ||
        !mpsr_lease_pipe(lease, self->task.gpu, self->color, self->pipe)) {
        say("server: the active one of GPU %ld cannot be told", lease->gpu[self->task.gpu].minor);
        finish(self, MPSR_EXIT_REFUSED << 8);
    }
    return start_active(self);
}

/* An order is being carried out: it counts, and its first step is awaited. */
static void recovering(struct supervisor *self) {
    self->recovering = true;
    retries_decay(self);
    self->retries++;
    self->retried_at = now_ms();
    self->deadline = self->session ? now_ms() + self->times.restore : 0;
}

static bool restart(struct supervisor *self) {
    mpsr_copy(self->color, sizeof(self->color), self->order.color);
    mpsr_copy(self->pipe, sizeof(self->pipe), self->order.pipe);
    if (self->standby.pid && !strcmp(self->standby.color, self->color))
        retire(self, &self->standby); /* on the same server it would die with the active one */
    recovering(self);
    return start_active(self);
}

static bool promote(struct supervisor *self) {
    if (!self->standby.pid || !self->standby.ready) {
        report_rung_failed(self, "standby", self->standby.pid ? "not ready" : "none runs");
        self->deadline = now_ms() + VERDICT_WAIT_MS;
        return false;
    }
    struct child old = self->active;
    struct packet packet;
    packet_begin(&packet, "promote");
    packet_text(&packet, "incident", self->order.incident);
    packet_text(&packet, "token", self->task.token); /* opens the kept state to it, from now on */
    child_say(&self->standby, &packet);
    self->active = self->standby;
    self->active.role = "active";
    self->active.session = true;
    memset(&self->standby, 0, sizeof(self->standby));
    self->standby.socket = -1;
    mpsr_copy(self->color, sizeof(self->color), self->active.color);
    mpsr_copy(self->pipe, sizeof(self->pipe), self->spare_pipe);
    self->spare_color[0] = '\0'; /* the agent says when there is a spare server again */
    recovering(self);
    report_process(self, "started", &self->active);
    supersede(self, &old);
    return true;
}

/* ---- requeue, failure */

static bool spill(struct supervisor *self) {
    char partition[MPSR_LEASE_WORD];
    self->spiller.seq = -1;
    sigdelset(&self->told, SIGTERM); /* an earlier one was the program's to follow */
    if (!self->session)
        happen(self,
               ON_SPILLED); /* a plain program keeps nothing: it may run until Slurm ends it */
    else {
        if (self->active.pid) /* kept state is to stand still */
            ending_begin(self, &self->active);
        if (!partition_on(&self->task, self->order.color, partition) ||
            !spiller_start(&self->spiller, &self->task, self->order.pipe, partition))
            happen(self, ON_SPILLED);
    }
    return true;
}

static bool pass(struct supervisor *self) {
    int status = self->exit_status;
    finish(self, self->failed && !status ? MPSR_EXIT_FAILED << 8 : status);
}

static bool leave(struct supervisor *self) {
    if (self->hold_until <= now_ms())
        return pass(self);
    self->deadline = self->hold_until;
    return false;
}

static bool fail(struct supervisor *self, const char *reason) {
    self->failed = true;
    say("%s", *reason ? reason : "the task cannot go on");
    if (!self->active.pid)
        return leave(self);
    if (self->active.told_to_go) { /* on its way out, if the driver lets it: nothing to pass on */
        self->exit_status = MPSR_EXIT_RECOVERY_FAILED << 8;
        return leave(self);
    }
    tell(&self->active, "fail", "reason", reason);
    return true;
}

/* The program raises its own error then. It says nothing of the reason: that is for us to do, once,
 * whatever the program is. */
static void no_way(struct supervisor *self, enum event event) {
    const char *reason = self->order.reason;
    if (event != ON_FAULT) { /* else it has been said with the verdict */
        reason = event == ON_DEADLINE ? "no verdict in time" : "no fault of the GPU is known";
        say("%s", reason);
    }
    tell(&self->active, "fail", "reason", reason);
}

/* The agent has been told what happened. A new one is told again. */
static bool ask(struct supervisor *self, enum event event) {
    if (event == ON_PLACED && self->state == FAULTED)
        report_fault(self, &self->active, &self->report);
    else if (event == ON_PLACED)
        report_exit(self, "active", self->exit_pid, self->exit_status, false, false);
    return true;
}

static _Noreturn void give_up(struct supervisor *self, enum state before) {
    char text[96] = "requeue: Slurm has not ended the job in time";
    if (before == KILLED)
        mpsr_format(text, sizeof(text), "process %d: does not end after SIGKILL",
                    (int)self->active.pid);
    tell_user(self, text);
    finish(self, MPSR_EXIT_RECOVERY_FAILED << 8);
}

static bool act(struct supervisor *self, enum action action, enum event event, enum state before) {
    switch (action) {
    case NOTHING:
        return true;
    case START:
        return start_active(self);
    case START_ALONE:
        return start_alone(self);
    case REFUSE:
        say("refused by the node agent: %s", self->order.reason);
        finish(self, MPSR_EXIT_REFUSED << 8);
    case ASK:
        return ask(self, event);
    case PROMOTE:
        return promote(self);
    case END_NOW:
        if (!self->active.pid) { /* a parked task has no process: nothing to wait for */
            happen(self, ON_EXIT_BAD);
            return true;
        }
        if (family_stopped(self->active.pid)) {  /* suspended: the next one would not be */
            self->deadline = now_ms() + TICK_MS; /* does not pass meanwhile: clock.c */
            return false;
        }
        ending_begin(self, &self->active);
        return true;
    case LET_END:
        if (!self->active.pid)
            happen(self, ON_EXIT_BAD);
        return true;
    case RESTART:
        return restart(self);
    case SPILL:
        return spill(self);
    case PARK:
        retire_spiller(self);
        report_spilled(self);
        if (sigismember(&self->told, SIGTERM) == 1) /* came while it spilled */
            finish(self, SIGTERM);
        if (event == ON_REQUEUE) /* a new agent has begun anew */
            clock_enter(self);
        return true;
    case TELL:
        no_way(self, event);
        return true;
    case FAIL:
        return fail(self, self->order.reason);
    case LATE:
        report_rung_failed(self, self->order.action, "no step in time");
        self->recovering = false;
        self->deadline = 0;
        return true;
    case PASS:
        return pass(self);
    case LEAVE:
        return leave(self);
    case GIVE_UP:
        give_up(self, before);
    case END_TERM:
        finish(self, SIGTERM);
    }
    return false;
}

void happen(struct supervisor *self, enum event event) {
    enum state before = self->state;
    const struct cell *cell = &verdict_table[before][event];
    self->state = cell->next;
    if (cell->next != before)
        clock_enter(self); /* the action may shorten it */
    if (!act(self, cell->action, event, before))
        self->state = cell->otherwise; /* the action has set the deadline */
}
