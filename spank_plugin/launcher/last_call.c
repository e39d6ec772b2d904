/* See last_call.h. */
#include "last_call.h"

#include "shared/text.h"
#include "supervisor.h"

#include <string.h>

static bool wanted(const struct supervisor *self) {
    const char *endings = self->task.options.value[MPSR_OPTION_ENDINGS];
    return self->last_call.wait && self->active.pid &&
           (self->active.session || !strcmp(endings, "safe"));
}

void last_call_learn(struct supervisor *self, const struct words *words) {
    long wait = 0;
    if (mpsr_number(words_get(words, "ms"), 1, TIMES_MAX_MS, &wait))
        self->last_call.wait = wait;
    else
        say("agent: kill_wait without a time: %s", words_get(words, "ms"));
}

void last_call_told(struct supervisor *self) {
    struct last_call *call = &self->last_call;
    long early = call->wait > LEAD_MS ? call->wait - LEAD_MS : 1;
    if (!wanted(self) || call->made)
        return;
    call->terms++;
    *(call->at ? &call->next : &call->at) = now_ms() + early;
}

void last_call_due(struct supervisor *self) {
    struct last_call *call = &self->last_call;
    struct packet packet;
    if (!call->at || call->at > now_ms())
        return;
    call->at = call->next;
    call->next = 0;
    packet_begin(&packet, "kill_when");
    if (wanted(self))
        agent_send(&self->agent, &packet);
}

static void end_clients(struct supervisor *self) {
    struct child *const all[] = {&self->active, &self->standby};
    static struct family family;
    self->last_call.made = true;
    for (size_t index = 0; index < sizeof(all) / sizeof(all[0]); index++)
        if (all[index]->pid) {
            family.count = 0;
            family_gather(&family, all[index]->pid);
            ending_ask(self, &family, all[index]->color, false);
        }
}

void last_call_answered(struct supervisor *self, const struct words *words) {
    struct last_call *call = &self->last_call;
    long left = 0;
    if (!*words_get(words, "ms")) /* Slurm lets it run */
        return;
    if (!mpsr_number(words_get(words, "ms"), 0, TIMES_MAX_MS, &left))
        say("agent: kill_in with a time that is none: %s", words_get(words, "ms"));
    else if (left > LEAD_MS && call->terms > 1) /* a later one counts; clocks of nodes differ */
        call->at = now_ms() + left - LEAD_MS;
    else if (wanted(self) && !call->made)
        end_clients(self);
}
