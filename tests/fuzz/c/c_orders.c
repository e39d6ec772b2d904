/* What comes at the supervisor's socket of an agent, one packet a line: orders are turned into
 * events here, and not carried out. */
#include "fuzz.h"
#include "launcher/supervisor.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static long long clock_ms;

long long now_ms(void) {
    return ++clock_ms;
}

long long now_us(void) {
    return now_ms() * 1000;
}

void say(const char *format, ...) {
    char line[1024];
    va_list values;
    va_start(values, format);
    assert(vsnprintf(line, sizeof(line), format, values) >= 0); /* reads what it is given */
    va_end(values);
}

void happen(struct supervisor *self, enum event event) {
    const struct order *order = &self->order;
    assert(event >= 0 && event < EVENTS);
    if (event == ON_RESTORE || event == ON_RELAUNCH)
        assert(order->pipe[0] == '/' && order->color[0]);
    if (event == ON_PLACED) {
        assert(self->state != PLACING || (self->pipe[0] == '/' && self->agent.placed));
        self->state = RUNNING;
    }
}

void start_standby(struct supervisor *self) {
    self->standby.pid = *self->spare_color ? 1 : 0;
}

void retire(struct supervisor *self, struct child *child) {
    assert(child == &self->standby);
    child->pid = 0;
}

void report_process(struct supervisor *self, const char *verb, const struct child *child) {
    assert(self && *verb && child->pid);
}

void report_hello(struct supervisor *self) {
    assert(self->agent.fd >= 0);
}

void ending_answered(struct supervisor *self, long asked) {
    self->asked = asked;
}

void dying_answered(struct supervisor *self, long number) {
    self->asked = number;
}

void family_gather(struct family *family, pid_t top) {
    assert(top > 0);
    family->count = 0;
}

long ending_ask(struct supervisor *self, const struct family *family, const char *color,
                bool alone) {
    assert(!family->count && color && !alone);
    return ++self->asked;
}

void log_of_agent(struct supervisor *self, const struct words *words) {
    assert(self && strlen(words_get(words, "line")) < MPSR_MAX_MESSAGE_BYTES);
}

static void whole(const struct supervisor *self) {
    const struct times *times = &self->times;
    const long each[] = {times->grace, times->restore, times->requeue};
    for (size_t index = 0; index < sizeof(each) / sizeof(each[0]); index++)
        assert(each[index] >= 0 && each[index] <= TIMES_MAX_MS);
    assert(times->window >= 0 && times->window <= WINDOW_MAX_MS);
    assert(self->hold_until <= clock_ms + HOLD_MAX_MS);
    assert(!*self->spare_color || self->spare_pipe[0] == '/');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct supervisor self;
    int ends[2];
    memset(&self, 0, sizeof(self));
    assert(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends));
    self.agent.fd = ends[0];
    self.active.pid = 1;
    self.active.session = size % 2;
    for (const uint8_t *at = data, *end = data + size; at < end && self.agent.fd >= 0;) {
        const uint8_t *line = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((line ? line : end) - at);
        if (length && send(ends[1], at, length, MSG_NOSIGNAL) == (ssize_t)length)
            read_agent(&self);
        whole(&self);
        at += length + 1;
    }
    close(ends[1]);
    read_agent(&self); /* it has gone */
    assert(self.agent.fd < 0);
    return 0;
}
