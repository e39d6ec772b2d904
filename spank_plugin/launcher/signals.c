/* See signals.h. */
#include "signals.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static sigset_t given;
static struct sigaction given_child;

int signals_take(void) {
    sigset_t all;
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigaction(SIGCHLD, &plain, &given_child); /* inherited SIG_IGN would reap our children for us */
    sigfillset(&all);
    /* raised by our own bugs: blocked, they would end us without a word all the same */
    const int own[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
    for (size_t index = 0; index < sizeof(own) / sizeof(own[0]); index++)
        sigdelset(&all, own[index]);
    sigprocmask(SIG_SETMASK, &all, &given);
    return signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
}

void signals_give_back(void) {
    sigaction(SIGCHLD, &given_child, NULL);
    sigprocmask(SIG_SETMASK, &given, NULL);
}

void signals_keep_out(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
}

int signals_next(int fd) {
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info) ? (int)info.ssi_signo : 0;
}

_Noreturn void signals_exit_as(int status) {
    if (WIFSIGNALED(status)) {
        const struct rlimit none = {0, 0};
        struct sigaction plain = {.sa_handler = SIG_DFL};
        sigset_t one;
        setrlimit(RLIMIT_CORE, &none);
        prctl(PR_SET_DUMPABLE, 0); /* a core_pattern with a pipe ignores the limit */
        sigemptyset(&one);
        sigaddset(&one, WTERMSIG(status));
        sigaction(WTERMSIG(status), &plain, NULL);
        raise(WTERMSIG(status));
        sigprocmask(SIG_UNBLOCK, &one, NULL);
        _exit(128 + WTERMSIG(status));
    }
    _exit(WEXITSTATUS(status));
}
