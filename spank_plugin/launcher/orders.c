/* What the agent says, turned into events: where to start, verdicts, log lines; and the way back to
 * an agent that was lost.
 *
 * Relies on docs/reference/protocols.md §5. A message that does not follow it is told on one line
 * and ignored; nothing here waits.
 */
#include "shared/text.h"
#include "supervisor.h"

#include <stdlib.h>
#include <string.h>

static bool absolute(const char *path) {
    return *path == '/' && strlen(path) < MPSR_LEASE_PATH;
}

static bool milliseconds(const struct words *words, const char *key, long *value) {
    return mpsr_number(words_get(words, key), 0, TIMES_MAX_MS, value);
}

static void on_place(struct supervisor *self, const struct words *words) {
    struct times times = {0};
    long spill = 0;
    const char *color = words_get(words, "color"), *pipe = words_get(words, "pipe");
    const char *spare = words_get(words, "standby"), *spare_pipe = words_get(words, "standby_pipe");
    self->agent.placed = self->agent.ever = true;
    self->connect_at = 0;
    if (self->state == PLACING &&
        (!absolute(pipe) || !mpsr_copy(self->color, sizeof(self->color), color) ||
         !mpsr_copy(self->pipe, sizeof(self->pipe), pipe))) {
        say("agent: place without a usable pipe directory: %s", pipe);
        return;
    }
    if (!milliseconds(words, "grace_ms", &times.grace) ||
        !milliseconds(words, "restore_ms", &times.restore) ||
        !milliseconds(words, "requeue_ms", &times.requeue) ||
        !milliseconds(words, "spill_ms", &spill)) {
        say("agent: place without the site's times: grace %s restore %s requeue %s spill %s",
            words_get(words, "grace_ms"), words_get(words, "restore_ms"),
            words_get(words, "requeue_ms"), words_get(words, "spill_ms"));
        return;
    }
    if (*words_get(words, "window_ms") &&
        !mpsr_number(words_get(words, "window_ms"), 0, WINDOW_MAX_MS, &times.window))
        say("agent: place with a window of retries that is none: %s",
            words_get(words, "window_ms"));
    self->times = times;
    setenv(MPSR_ENV_SPILL_MS, words_get(words, "spill_ms"), 1); /* the programs' to keep */
    if (*spare && absolute(spare_pipe) && !self->standby.pid && strcmp(spare, self->color) != 0 &&
        mpsr_copy(self->spare_color, sizeof(self->spare_color), spare))
        mpsr_copy(self->spare_pipe, sizeof(self->spare_pipe), spare_pipe);
    happen(self, ON_PLACED);
    if (self->standby.pid) { /* the agent is a new one and does not know of it */
        report_process(self, "started", &self->standby);
        if (self->standby.ready)
            report_process(self, "ready", &self->standby);
    }
    start_standby(self);
}

static void on_verdict(struct supervisor *self, const struct words *words) {
    static const struct {
        const char *action;
        enum event event;
        bool needs_server;
    } ACTIONS[] = {
        {"none", ON_NONE, false},         {"promote", ON_PROMOTE, false},
        {"restore", ON_RESTORE, true},    {"relaunch", ON_RELAUNCH, true},
        {"quarantine", ON_RESTORE, true}, {"requeue", ON_REQUEUE, false},
        {"fail", ON_FAIL, false},
    };
    const char *action = words_get(words, "action"), *pipe = words_get(words, "pipe");
    for (size_t index = 0; index < sizeof(ACTIONS) / sizeof(ACTIONS[0]); index++) {
        struct order order = {.told_us = now_us()};
        enum event event = ACTIONS[index].event;
        if (strcmp(action, ACTIONS[index].action) != 0)
            continue;
        bool fits =
            mpsr_copy(order.incident, sizeof(order.incident), words_get(words, "incident")) &&
            mpsr_copy(order.action, sizeof(order.action), action) &&
            mpsr_copy(order.color, sizeof(order.color), words_get(words, "color")) &&
            mpsr_copy(order.pipe, sizeof(order.pipe), pipe);
        mpsr_format(order.reason, sizeof(order.reason), "%s", words_get(words, "reason"));
        if (!fits || (ACTIONS[index].needs_server && (!absolute(pipe) || !*order.color)))
            break;
        self->order = order;
        if (!strcmp(action, "quarantine") && !self->session)
            event = ON_RELAUNCH;
        happen(self, event);
        return;
    }
    say("agent: verdict that cannot be followed: %s on %s", action, pipe);
}

static void on_standby(struct supervisor *self, const struct words *words) {
    const char *color = words_get(words, "color"), *pipe = words_get(words, "pipe");
    if (!absolute(pipe) || !*color ||
        !mpsr_copy(self->spare_color, sizeof(self->spare_color), color) ||
        !mpsr_copy(self->spare_pipe, sizeof(self->spare_pipe), pipe)) {
        say("agent: standby without a usable pipe directory: %s", pipe);
        return;
    }
    retire(self, &self->standby); /* one whose server was hit: its context is dead */
    start_standby(self);
}

/* Slurm takes an account of a job only as long as the job runs, so its tasks stay until that is
 * done. */
static void on_hold(struct supervisor *self, const struct words *words) {
    long time = 0;
    if (milliseconds(words, "ms", &time))
        self->hold_until = now_ms() + (time < HOLD_MAX_MS ? time : HOLD_MAX_MS);
    else
        say("agent: hold without a time: %s", words_get(words, "ms"));
}

static void on_ended(struct supervisor *self, long number) {
    ending_answered(self, number);
    dying_answered(self, number);
}

static void on_agent_message(struct supervisor *self, const struct words *words) {
    if (!strcmp(words->verb, "place"))
        on_place(self, words);
    else if (!strcmp(words->verb, "verdict"))
        on_verdict(self, words);
    else if (!strcmp(words->verb, "standby"))
        on_standby(self, words);
    else if (!strcmp(words->verb, "hold"))
        on_hold(self, words);
    else if (!strcmp(words->verb, "release")) {
        self->hold_until = 0;
        happen(self, ON_RELEASED);
    } else if (!strcmp(words->verb, "log"))
        log_of_agent(self, words);
    else if (!strcmp(words->verb, "say")) {
        say("%s", words_get(words, "line"));
        self->sight.look_at = 0; /* told, and once is enough */
    } else if (!strcmp(words->verb, "ended"))
        on_ended(self, strtol(words_get(words, "n"), NULL, 10));
    else if (!strcmp(words->verb, "kill_wait"))
        last_call_learn(self, words);
    else if (!strcmp(words->verb, "kill_in"))
        last_call_answered(self, words);
    else if (!strcmp(words->verb, "refuse")) {
        mpsr_format(self->order.reason, sizeof(self->order.reason), "%s",
                    words_get(words, "reason"));
        happen(self, ON_REFUSED);
    } else
        say("agent: message with an unknown verb: %s", words->verb);
}

static void lose_agent(struct supervisor *self) {
    agent_close(&self->agent);
    self->lost_at = now_ms();
    self->connect_at = self->lost_at + RECONNECT_MS;
    if (self->state == PLACING) /* one that hangs up again and again is none */
        self->deadline = self->lost_at + (++self->flaps < AGENT_FLAPS ? AGENT_WAIT_MS : 0);
}

void read_agent(struct supervisor *self) {
    static struct words words;
    char why[WORDS_WHY];
    while (self->agent.fd >= 0)
        switch (agent_receive(&self->agent, &words, why)) {
        case AGENT_NOTHING:
            return;
        case AGENT_LOST:
            lose_agent(self);
            return;
        case AGENT_MALFORMED:
            say("agent: message not understood: %s", why);
            break;
        case AGENT_MESSAGE:
            on_agent_message(self, &words);
            break;
        }
}

void look_for_agent(struct supervisor *self) {
    long long now = now_ms();
    if (!self->connect_at || now < self->connect_at)
        return;
    if (agent_connect(&self->agent, self->task.lease.agent)) {
        report_hello(self);
        self->connect_at = now + PLACE_WAIT_MS; /* no answer by then: it is tried again */
        if (self->state == PLACING)
            self->deadline = now + PLACE_WAIT_MS;
        return;
    }
    bool lately = now - self->lost_at < VERDICT_WAIT_MS;
    self->connect_at = now + (lately ? RECONNECT_MS : RECONNECT_SLOW_MS);
}
