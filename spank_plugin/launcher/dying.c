/* See dying.h. */
#include "dying.h"

#include "shared/text.h"
#include "supervisor.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void dying_listen(struct dying *dying, const struct task *task) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    dying->listener = -1;
    if (!mpsr_format(dying->path, sizeof(dying->path), "%s/e%ld.%ld", task->job_dir, task->step,
                     task->rank) ||
        !mpsr_copy(address.sun_path, sizeof(address.sun_path), dying->path))
        return;
    unlink(dying->path); /* of a supervisor that was killed: the number is ours now */
    dying->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (dying->listener >= 0 &&
        !bind(dying->listener, (const struct sockaddr *)&address, sizeof(address)) &&
        !listen(dying->listener, DYING))
        return;
    dying_close(dying);
}

static void let_go(struct dying *dying, int index) {
    close(dying->of[index].fd);
    dying->of[index].fd = 0;
}

/* Whose process is it? A standby's clients are on the spare server. */
static const struct child *owner(struct supervisor *self, pid_t pid) {
    static struct family family;
    family.count = 0;
    if (self->standby.pid)
        family_gather(&family, self->standby.pid);
    return family_has(&family, pid) ? &self->standby : &self->active;
}

static void take(struct supervisor *self, int fd) {
    struct dying *dying = &self->dying;
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);
    int slot = -1;
    long asked = 0;
    for (int index = 0; index < DYING; index++)
        if (!dying->of[index].fd)
            slot = index;
    if (slot >= 0 && !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) &&
        peer.uid == getuid()) {
        static struct family family; /* what it has started lives on */
        family.count = 1;
        family.member[0].pid = peer.pid;
        asked = peer.pid > 0 ? ending_ask(self, &family, owner(self, peer.pid)->color, true) : 0;
    }
    if (!asked) {
        close(fd);
        return;
    }
    dying->of[slot].fd = fd;
    dying->of[slot].asked = asked;
    dying->of[slot].until = now_ms() + DYING_MS;
}

void dying_take(struct supervisor *self) {
    for (int fd = 0; self->dying.listener >= 0 && fd >= 0;) {
        fd = accept4(self->dying.listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            take(self, fd);
    }
}

void dying_answered(struct supervisor *self, long asked) {
    for (int index = 0; index < DYING; index++)
        if (self->dying.of[index].fd && self->dying.of[index].asked == asked)
            let_go(&self->dying, index);
}

long long dying_due(struct supervisor *self) {
    struct dying *dying = &self->dying;
    long long next = 0;
    for (int index = 0; index < DYING; index++) {
        if (dying->of[index].fd && (dying->of[index].until <= now_ms() || self->agent.fd < 0))
            let_go(dying, index);
        if (dying->of[index].fd && (!next || dying->of[index].until < next))
            next = dying->of[index].until;
    }
    return next;
}

void dying_close(struct dying *dying) {
    if (dying->listener >= 0)
        close(dying->listener);
    dying->listener = -1;
    if (*dying->path)
        unlink(dying->path);
    dying->path[0] = '\0';
}
