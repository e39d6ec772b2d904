/* See ending.h. */
#include "ending.h"

#include "shared/text.h"
#include "supervisor.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PIDS_TEXT = 3000 }; /* with the rest of its packet it fits what the agent takes of us */

long ending_ask(struct supervisor *self, const struct family *family, const char *color,
                bool alone) {
    struct packet packet;
    char pids[PIDS_TEXT + 16] = "";
    size_t used = 0;
    for (int index = 0; index < family->count && used < PIDS_TEXT; index++)
        used += (size_t)snprintf(pids + used, sizeof(pids) - used, "%s%d", used ? "," : "",
                                 (int)family->member[index].pid);
    packet_begin(&packet, "end");
    packet_number(&packet, "n", self->asked + 1);
    packet_text(&packet, "color", color);
    packet_number(&packet, "alone", alone);
    packet_text(&packet, "pids", pids);
    if (!used || !self->agent.placed || !agent_send(&self->agent, &packet))
        return 0;
    return ++self->asked;
}

/* False: there is nothing to wait for. */
static bool ask(struct supervisor *self, struct child *child) {
    if (!child->faulted)
        child->asked = ending_ask(self, &child->family, child->color, false);
    return child->asked != 0;
}

/* From here on nothing that it does counts. */
static void disown(struct child *child) {
    child->told_to_go = true;
    child->family.count = 0;
    family_gather(&child->family, child->pid);
}

static void put_down(struct child *child) {
    family_kill(&child->family);
    child->kill_at = 0;
    if (child->reaped)
        child_forget(child);
}

static void due(struct supervisor *self, struct child *child) {
    if (!child->kill_at || child->kill_at > now_ms())
        return;
    if (!child->asked && ask(self, child))
        child->kill_at = now_ms() + ENDING_MS;
    else
        put_down(child);
}

void ending_due(struct supervisor *self) {
    for (int index = 0; index < RETIRED; index++)
        due(self, &self->retired[index]);
    due(self, &self->active);
}

void ending_answered(struct supervisor *self, long asked) {
    struct child *all[RETIRED + 1] = {&self->active};
    for (int index = 0; index < RETIRED; index++)
        all[index + 1] = &self->retired[index];
    for (size_t index = 0; index < sizeof(all) / sizeof(all[0]); index++)
        if (all[index]->kill_at && all[index]->asked && all[index]->asked == asked)
            put_down(all[index]);
}

void ending_begin(struct supervisor *self, struct child *child) {
    struct packet packet;
    packet_begin(&packet, "retire");
    child_say(child, &packet);
    disown(child);
    /* a shell round the program would go on with its next command: no delay then */
    child->kill_at = now_ms() + (child->session && child->family.count == 1 ? RETIRE_MS : 0);
    ending_due(self);
}

static void set_aside(struct supervisor *self, struct child *child) {
    struct child *slot = &self->retired[0];
    for (int index = 0; index < RETIRED; index++)
        if (!self->retired[index].pid)
            slot = &self->retired[index];
    if (slot->pid) { /* it has had its time, and more */
        put_down(slot);
        child_forget(slot);
    }
    *slot = *child;
    slot->role = "retired";
    memset(child, 0, sizeof(*child));
    child->socket = -1;
}

void retire(struct supervisor *self, struct child *child) {
    if (!child->pid)
        return;
    ending_begin(self, child);
    set_aside(self, child);
}

void retire_spiller(struct supervisor *self) {
    struct child child = {.pid = self->spiller.pid, .socket = -1};
    if (self->spiller.pid <= 0)
        return;
    self->spiller.pid = 0;
    mpsr_copy(child.color, sizeof(child.color), self->order.color);
    retire(self, &child);
}

/* It has seen its fault and waits for us: it may wait until the other has made its first step
 * (`way_is_free`), whose cores and locks it would want for its end. When the keeper has died lately
 * it may be the only one that has the kept state: it gives that to the next keeper, and the other
 * takes it from there. */
void supersede(struct supervisor *self, struct child *old) {
    if (!old->pid)
        return;
    disown(old);
    old->kill_at = now_ms() + (self->keeper.up && !self->keeper.deaths ? SUPERSEDED_MS : HEIR_MS);
    set_aside(self, old);
}

void keep_superseded(struct supervisor *self) {
    for (int index = 0; self->recovering && index < RETIRED; index++)
        if (self->retired[index].kill_at && !self->retired[index].asked)
            self->retired[index].kill_at = now_ms() + HEIR_MS;
}

void way_is_free(struct supervisor *self) {
    for (int index = 0; index < RETIRED; index++)
        if (self->retired[index].kill_at && !self->retired[index].asked)
            self->retired[index].kill_at = now_ms();
    ending_due(self);
}

void ending_reaped(struct supervisor *self, pid_t pid) {
    for (int index = 0; index < RETIRED; index++)
        if (self->retired[index].pid == pid) {
            struct child *child = &self->retired[index];
            child->reaped = true;
            family_complete(&child->family);
            bool alone = family_gone(&child->family);
            if (alone || child->asked || !ask(self, child)) {
                put_down(child);
            } else /* a shell that ended before its program: that is a client as well */
                child->kill_at = now_ms() + ENDING_MS;
        }
}

static bool waiting(const struct supervisor *self) {
    bool found = false;
    for (int index = 0; index < RETIRED; index++)
        found |= self->retired[index].kill_at != 0;
    return found && self->agent.fd >= 0;
}

/* Of what the agent says, only what matters to those who are about to leave. */
static void hear(struct supervisor *self) {
    static struct words words;
    char why[WORDS_WHY];
    for (enum agent_news news = AGENT_MESSAGE; news != AGENT_NOTHING && self->agent.fd >= 0;) {
        news = agent_receive(&self->agent, &words, why);
        if (news == AGENT_LOST)
            agent_close(&self->agent);
        else if (news == AGENT_MESSAGE && !strcmp(words.verb, "ended"))
            ending_answered(self, strtol(words_get(&words, "n"), NULL, 10));
        else if (news == AGENT_MESSAGE && !strcmp(words.verb, "log"))
            log_of_agent(self, &words);
    }
}

static void end_retired(struct supervisor *self) {
    for (int index = 0; index < RETIRED; index++)
        if (self->retired[index].kill_at && !self->retired[index].asked)
            self->retired[index].kill_at = now_ms();
    ending_due(self);
    long long until = now_ms() + ENDING_MS;
    while (waiting(self) && now_ms() < until) {
        struct pollfd news = {self->agent.fd, POLLIN, 0};
        poll(&news, 1, (int)(until - now_ms()));
        hear(self);
    }
    for (int index = 0; index < RETIRED; index++)
        if (self->retired[index].pid)
            put_down(&self->retired[index]);
}

/* Reap `pid`, or -1: all. False: it has not ended in time. */
static bool reaped(pid_t pid, long long until) {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    pid_t gone = 0;
    while ((gone = waitpid(pid, NULL, WNOHANG)) >= 0 && gone != pid && now_ms() < until) {
        const struct timespec pause = {.tv_nsec = ENDING_LOOK_MS * 1000 * 1000};
        if (gone == 0)
            sigtimedwait(&child, NULL, &pause);
    }
    return gone != 0;
}

/* What a task that ended badly has kept is overwritten before the keeper goes: only the keeper
 * holds it now. */
static void wipe(struct supervisor *self) {
    struct lines silent = {.fd = -1};
    struct child child = {.socket = -1};
    char partition[MPSR_LEASE_WORD];
    if (!self->session || !self->keeper.up ||
        !mpsr_lease_partition(&self->task.lease, self->task.gpu, self->color, partition) ||
        !(child.pid = wiper_start(&silent, &self->task, self->pipe, partition)))
        return;
    if (!reaped(child.pid, now_ms() + WIPE_MS)) {
        say("kept state was not wiped in %d s", WIPE_MS / 1000);
        mpsr_copy(child.color, sizeof(child.color), self->color);
        retire(self, &child);
        end_retired(self);
    }
    lines_close(&silent);
}

void ending_all(struct supervisor *self) {
    struct child *const all[] = {&self->active, &self->standby};
    retire_spiller(self);
    for (size_t index = 0; index < sizeof(all) / sizeof(all[0]); index++)
        if (all[index]->pid) {
            disown(all[index]);
            all[index]->kill_at = now_ms();
            set_aside(self, all[index]);
        }
    end_retired(self);
    wipe(self);
    if (self->keeper.pid > 0)
        kill(self->keeper.pid, SIGKILL); /* holds descriptors, and is no client */
    reaped(-1, now_ms() + FAREWELL_MS);
}
