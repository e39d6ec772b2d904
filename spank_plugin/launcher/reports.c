/* What the supervisor tells the agent: one function per verb of docs/reference/protocols.md §5.
 * Unsent is unsaid: whoever needs an answer sends again when the agent is back.
 */
#include "supervisor.h"

#include <stdio.h>
#include <unistd.h>

void report_hello(struct supervisor *self) {
    struct packet packet;
    const struct task *task = &self->task;
    bool resumed = self->active.pid != 0 || self->state != PLACING;
    packet_begin(&packet, "hello");
    packet_number(&packet, "v", MPSR_PROTOCOL_VERSION);
    packet_number(&packet, "job", task->lease.job);
    packet_number(&packet, "step", task->step);
    packet_number(&packet, "task", task->rank);
    packet_number(&packet, "local", task->local);
    packet_number(&packet, "gpu", task->lease.gpu[task->gpu].minor);
    packet_number(&packet, "pid", getpid());
    packet_number(&packet, "starttime", (long long)process_starttime(getpid()));
    packet_text(&packet, "options", task->wire);
    packet_number(&packet, "mpi", self->ranks.told = ranks_together(&self->ranks));
    packet_number(&packet, "resumed", resumed);
    retries_decay(self);
    packet_number(&packet, "retries_used", self->retries);
    packet_number(&packet, "retried_ms", self->retries ? now_ms() - self->retried_at : 0);
    packet_number(&packet, "active_pid", self->active.pid);
    packet_text(&packet, "color", self->color);
    packet_number(&packet, "session", self->active.session);
    packet_text(&packet, "program", task->strike);
    agent_send(&self->agent, &packet);
}

/* `started`, `session` and `ready` differ in what else they carry; the agent ignores what it does
 * not need. */
void report_process(struct supervisor *self, const char *verb, const struct child *child) {
    struct packet packet;
    packet_begin(&packet, verb);
    packet_text(&packet, "role", child->role);
    packet_number(&packet, "pid", child->pid);
    packet_number(&packet, "starttime", (long long)child->starttime);
    packet_text(&packet, "color", child->color);
    agent_send(&self->agent, &packet);
}

void report_ranks(struct supervisor *self) {
    struct packet packet;
    packet_begin(&packet, "ranks");
    packet_number(&packet, "mpi", self->ranks.told = ranks_together(&self->ranks));
    agent_send(&self->agent, &packet);
}

void report_fault(struct supervisor *self, const struct child *child, const struct report *report) {
    struct packet packet;
    packet_begin(&packet, "fault");
    packet_text(&packet, "role", child->role);
    packet_number(&packet, "pid", child->pid);
    packet_text(&packet, "cuda", report->cuda);
    packet_text(&packet, "call", report->call);
    packet_text(&packet, "seq", report->seq);
    packet_text(&packet, "text", report->text);
    agent_send(&self->agent, &packet);
}

void report_exit(struct supervisor *self, const char *role, pid_t pid, int status, bool told,
                 bool ours) {
    struct packet packet;
    packet_begin(&packet, "exit");
    packet_text(&packet, "role", role);
    packet_number(&packet, "pid", pid);
    packet_number(&packet, "status", status);
    packet_number(&packet, "told", told);
    packet_number(&packet, "ours", ours);
    agent_send(&self->agent, &packet);
}

void report_stepped(struct supervisor *self, const char *seq, const char *at) {
    struct packet packet;
    char ms[32];
    snprintf(ms, sizeof(ms), "%.3f", (double)(now_us() - self->order.told_us) / 1000.0);
    packet_begin(&packet, "stepped");
    packet_text(&packet, "incident", self->order.incident);
    packet_text(&packet, "seq", seq);
    packet_text(&packet, "ms", ms);
    packet_text(&packet, "at", at);
    agent_send(&self->agent, &packet);
}

void report_rung_failed(struct supervisor *self, const char *rung, const char *reason) {
    struct packet packet;
    packet_begin(&packet, "rung_failed");
    packet_text(&packet, "incident", self->order.incident);
    packet_text(&packet, "rung", rung);
    packet_text(&packet, "reason", reason);
    agent_send(&self->agent, &packet);
}

void report_spilled(struct supervisor *self) {
    struct packet packet;
    packet_begin(&packet, "spilled");
    packet_text(&packet, "incident", self->order.incident);
    packet_number(&packet, "seq", self->spiller.seq);
    agent_send(&self->agent, &packet);
}

void report_keeper(struct supervisor *self, const char *state) {
    struct packet packet;
    packet_begin(&packet, "keeper");
    packet_text(&packet, "state", state);
    agent_send(&self->agent, &packet);
}
