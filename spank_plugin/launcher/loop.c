/* The supervisor's loop: wait for news of the agent, the programs, the helpers and the clock, and
 * turn each into an event. What the agent says is read by orders.c.
 *
 * Relies on transitions.c for what an event means. Every wait has a bound, or ends with the task's
 * own process. A message that does not follow the protocol is told on one line and ignored.
 */
#include "shared/text.h"
#include "signals.h"
#include "supervisor.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the programs */

/* What can be told of its ranks; the agent hears when that has changed. */
static void watch_ranks(struct supervisor *self, bool look) {
    ranks_listen(&self->ranks);
    if (self->active.pid && (look || (self->ranks.look_at && self->ranks.look_at <= now_ms())))
        ranks_look(&self->ranks, self->active.pid, now_ms());
    if (ranks_together(&self->ranks) == self->ranks.told)
        return;
    report_ranks(self);
    if (self->ranks.told)
        retire(self, &self->standby);
}

static void on_fault(struct supervisor *self, struct child *child, const struct words *words) {
    struct report report = {0};
    mpsr_format(report.cuda, sizeof(report.cuda), "%s", words_get(words, "cuda"));
    mpsr_format(report.call, sizeof(report.call), "%s", words_get(words, "call"));
    mpsr_format(report.seq, sizeof(report.seq), "%s", words_get(words, "seq"));
    mpsr_format(report.text, sizeof(report.text), "%s", words_get(words, "text"));
    char *const cut[] = {report.cuda, report.call, report.seq, report.text};
    for (size_t index = 0; index < sizeof(cut) / sizeof(cut[0]); index++)
        mpsr_one_line(cut[index]); /* it may end in the middle of a character now */
    if (self->last_call.made) {    /* its end has begun: no fault, and nothing to recover */
        struct packet packet;
        packet_begin(&packet, "fail");
        packet_text(&packet, "reason", "Slurm ends the step: its work was taken off the GPU");
        child_say(child, &packet);
        return;
    }
    if (child == &self->active)
        watch_ranks(self, true);
    report_fault(self, child, &report);
    child->faulted = true;
    if (child == &self->active) {
        self->report = report;
        happen(self, ON_FAULT);
    } else
        retire(self, child); /* a standby whose context is dead can only go */
}

static void on_session(struct supervisor *self, struct child *child) {
    child->session = true;
    if (child == &self->active) {
        self->ranks.settled = true; /* it is on the GPU, and has begun to work */
        watch_ranks(self, true);
    }
    report_process(self, "session", child);
    if (child != &self->active)
        return;
    self->session = true;
    if (!self->keeper.pid && !self->keeper.deaths &&
        !keeper_start(&self->keeper, &self->task, now_ms()))
        say("keeper: cannot be started: %s", helper_python(&self->task));
    start_standby(self);
}

static void on_child_message(struct supervisor *self, struct child *child,
                             const struct words *words) {
    bool active = child == &self->active;
    const char *version = words_get(words, "v");
    if (child->told_to_go)
        return;
    if (!strcmp(words->verb, "session")) {
        if (strcmp(version, "1") != 0)
            say("program: session of another version: %s", version);
        else
            on_session(self, child);
    } else if (!strcmp(words->verb, "ready") && !active) {
        child->ready = true;
        report_process(self, "ready", child);
    } else if (!strcmp(words->verb, "fault"))
        on_fault(self, child, words);
    else if (!strcmp(words->verb, "stepped") && active) {
        if (self->recovering)
            report_stepped(self, words_get(words, "seq"), words_get(words, "at"));
        if (self->recovering && (self->state == RUNNING || self->state == ARMED))
            self->deadline = 0;
        self->recovering = false;
        way_is_free(self);
    } else if (!strcmp(words->verb, "done") && active) {
        child->session = self->session = false;
        retire(self, &self->standby);
    } else
        say("program: message with an unknown verb: %s", words->verb);
}

static void read_child(struct supervisor *self, struct child *child) {
    static struct words words;
    char why[WORDS_WHY];
    while (child->socket >= 0)
        switch (packet_receive(child->socket, &words, why)) {
        case AGENT_NOTHING:
            return;
        case AGENT_LOST:
            close(child->socket);
            child->socket = -1;
            return;
        case AGENT_MALFORMED:
            say("program: message not understood: %s", why);
            break;
        case AGENT_MESSAGE:
            on_child_message(self, child, &words);
            break;
        }
}

static void active_gone(struct supervisor *self, pid_t pid, int status) {
    read_child(self, &self->active); /* its last words */
    if (self->active.pid != pid)
        return; /* they made us promote the standby: this was the old one */
    bool told = self->active.told_to_go;
    enum event event = ON_EXIT_BAD;
    if (!told && status == 0)
        event = ON_EXIT_OK;
    else if (!told && (self->last_call.made ||
                       (WIFSIGNALED(status) && sigismember(&self->told, WTERMSIG(status)) == 1)))
        event = ON_EXIT_TOLD;
    self->exit_pid = pid;
    /* an end that we have ordered says nothing about the task, however it looks */
    self->exit_status = told ? MPSR_EXIT_RECOVERY_FAILED << 8 : status;
    report_exit(self, self->active.role, pid, status, event == ON_EXIT_TOLD, told);
    child_forget(&self->active);
    happen(self, event);
}

static void keeper_gone(struct supervisor *self) {
    report_keeper(self, "lost");
    keep_superseded(self);
    if (!keeper_died(&self->keeper, now_ms()))
        say("keeper: died %d times in %d s: the task goes on without kept state", KEEPER_DEATHS,
            KEEPER_WINDOW_MS / 1000);
    else if (!keeper_start(&self->keeper, &self->task, now_ms()))
        say("keeper: cannot be started: %s", helper_python(&self->task));
}

/* ---- the helpers */

static void keeper_said(void *context, const char *line) {
    const struct supervisor *self = context;
    if (*self->log[0])
        recovery_log(self, line);
    else
        dprintf(2, "%s\n", line);
}

static void spiller_said(void *context, const char *line) {
    spiller_line(&((struct supervisor *)context)->spiller, line);
}

static void read_helpers(struct supervisor *self) {
    if (self->keeper.errors.fd >= 0 && !lines_read(&self->keeper.errors, keeper_said, self))
        lines_close(&self->keeper.errors);
    if (self->spiller.answer.fd >= 0 && !lines_read(&self->spiller.answer, spiller_said, self))
        lines_close(&self->spiller.answer);
    if (keeper_appeared(&self->keeper, &self->task, now_ms()) && self->keeper.deaths)
        report_keeper(self, "restored");
}

static void reap(struct supervisor *self) {
    int status = 0;
    for (pid_t pid = waitpid(-1, &status, WNOHANG); pid > 0; pid = waitpid(-1, &status, WNOHANG)) {
        if (pid == self->active.pid)
            active_gone(self, pid, status);
        else if (pid == self->standby.pid) {
            read_child(self, &self->standby);
            if (self->standby.pid == pid) {
                report_exit(self, self->standby.role, pid, status, false, false);
                child_forget(&self->standby);
                self->spare_color[0] = '\0';
            }
        } else if (pid == self->keeper.pid) {
            read_helpers(self);
            keeper_gone(self);
        } else if (pid == self->spiller.pid) {
            read_helpers(self);
            self->spiller.pid = 0;
            happen(self, ON_SPILLED);
        }
        ending_reaped(self, pid);
    }
}

static void read_signals(struct supervisor *self, int signals) {
    bool ending = false;
    for (int number = signals_next(signals); number; number = signals_next(signals)) {
        if (number != SIGCHLD)
            sigaddset(&self->told, number);
        ending |= number == SIGTERM;
    }
    reap(self);
    if (ending) {
        last_call_told(self);
        happen(self, ON_TERM);
    }
}

_Noreturn void supervise(struct supervisor *self, int signals) {
    self->state = PLACING;
    clock_enter(self);
    self->lost_at = self->connect_at = now_ms();
    for (;;) {
        look_for_agent(self);
        struct pollfd news[] = {
            {self->active.socket, POLLIN, 0},    {self->standby.socket, POLLIN, 0},
            {self->agent.fd, POLLIN, 0},         {signals, POLLIN, 0},
            {self->keeper.errors.fd, POLLIN, 0}, {self->spiller.answer.fd, POLLIN, 0},
            {self->ranks.wire, POLLIN, 0},       {self->dying.listener, POLLIN, 0},
        };
        if (poll(news, sizeof(news) / sizeof(news[0]), clock_next(self)) < 0 && errno != EINTR) {
            say("poll: %s", strerror(errno));
            finish(self, MPSR_EXIT_FAILED << 8);
        }
        clock_woke(self);
        watch_ranks(self, false);
        read_child(self, &self->active);
        read_child(self, &self->standby);
        read_agent(self);
        read_helpers(self);
        dying_take(self);
        read_signals(self, signals);
        ending_due(self);
        dying_due(self);
        last_call_due(self);
        if (self->active.pid && self->sight.look_at && self->sight.look_at <= now_ms())
            sight_look(&self->sight, &self->task, self->active.pid, self->pipe, now_ms());
        /* by the time of the last look: we may have been stopped since */
        if (self->deadline && self->deadline <= self->looked_at) {
            self->deadline = 0;
            happen(self, ON_DEADLINE);
        }
    }
}
