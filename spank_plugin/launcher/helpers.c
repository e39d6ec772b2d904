/* See helpers.h. The interpreter is the one that the lease names, or the user for an image that has
 * another; PYTHONPATH is kept, since the package may lie there. */
#include "helpers.h"

#include "child.h"
#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Variables of a user's Python that could stop another one from starting, or make it wait at a
 * prompt. */
static const char *const FOREIGN[] = {"PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT",
                                      "PYTHONPLATLIBDIR"};

/* Start `command`; its stream number `stream` goes into `lines`, standard input and output are
 * /dev/null otherwise. `at_our_death`: the signal that it gets then; 0: none. */
static pid_t helper_start(const struct task *task, const char *pipe, const char *partition,
                          const char *const command[], int stream, int at_our_death,
                          struct lines *lines) {
    int ends[2];
    pid_t parent = getpid();
    if (pipe2(ends, O_CLOEXEC))
        return 0;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, at_our_death);
        if (getppid() != parent)
            _exit(MPSR_EXIT_FAILED);
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(null, 0);
        dup2(null, 1);
        dup2(ends[1], stream);
        for (size_t index = 0; index < sizeof(FOREIGN) / sizeof(FOREIGN[0]); index++)
            unsetenv(FOREIGN[index]);
        child_gpu_environment(task, pipe, partition);
        setenv(MPSR_ENV_KEEPER, task->keeper, 1);
        setenv(MPSR_ENV_TOKEN, task->token, 1);
        setenv(MPSR_ENV_STANDBY_TOKEN, task->standby_token, 1);
        setenv(MPSR_ENV_PROGRAM, task->program, 1);
        setenv(MPSR_ENV_SPILL, task->spill, 1);
        unsetenv(MPSR_ENV_ARGV0);
        signals_keep_out();
        execvp(command[0], (char *const *)(uintptr_t)command);
        dprintf(2, MPSR_TAG ": %s: cannot be run: %s\n", command[0], strerror(errno));
        _exit(MPSR_EXIT_NOT_FOUND);
    }
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return 0;
    }
    lines_close(lines);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    lines->fd = ends[0];
    return pid;
}

const char *helper_python(const struct task *task) {
    const char *other = getenv(MPSR_ENV_PYTHON);
    return other && *other ? other : task->lease.python;
}

bool keeper_start(struct keeper *keeper, const struct task *task, long long now) {
    const char *limit = task->options.value[MPSR_OPTION_STATE];
    const char *command[] = {
        helper_python(task),           "-P",       "-m",
        "resilience.state.keeper",     "--socket", task->keeper,
        *limit ? "--limit-mib" : NULL, limit,      NULL,
    };
    unlink(task->keeper); /* what a dead one left would look as if this one were up */
    keeper->wanted = true;
    keeper->up = false;
    keeper->look_at = now + KEEPER_LOOK_MS;
    keeper->pid = helper_start(task, "", "", command, 2, 0, &keeper->errors); /* it looks itself */
    return keeper->pid != 0;
}

bool keeper_died(struct keeper *keeper, long long now) {
    keeper->pid = 0;
    keeper->up = false;
    if (!keeper->deaths || now - keeper->first_death > KEEPER_WINDOW_MS) {
        keeper->deaths = 0;
        keeper->first_death = now;
    }
    keeper->wanted = keeper->wanted && ++keeper->deaths < KEEPER_DEATHS;
    return keeper->wanted;
}

bool keeper_appeared(struct keeper *keeper, const struct task *task, long long now) {
    struct stat status;
    if (!keeper->pid || keeper->up)
        return false;
    keeper->look_at = now + KEEPER_LOOK_MS;
    keeper->up = !lstat(task->keeper, &status) && S_ISSOCK(status.st_mode);
    return keeper->up;
}

bool spiller_start(struct spiller *spiller, const struct task *task, const char *pipe,
                   const char *partition) {
    const char *command[] = {helper_python(task), "-P", "-m", "resilience.state.spill", NULL};
    spiller->seq = -1;
    spiller->pid = helper_start(task, pipe, partition, command, 1, SIGKILL, &spiller->answer);
    return spiller->pid != 0;
}

pid_t wiper_start(struct lines *silent, const struct task *task, const char *pipe,
                  const char *partition) {
    const char *command[] = {helper_python(task), "-P", "-m", "resilience.state.wipe", NULL};
    return helper_start(task, pipe, partition, command, 1, SIGKILL, silent);
}

void spiller_line(struct spiller *spiller, const char *line) {
    char *end = NULL;
    if (strncmp(line, "seq=", 4) != 0)
        return;
    errno = 0;
    long long seq = strtoll(line + 4, &end, 10);
    if (!errno && end != line + 4 && !*end && seq >= -1)
        spiller->seq = seq;
}

bool lines_read(struct lines *lines, void (*take)(void *context, const char *line), void *context) {
    for (;;) {
        ssize_t got = read(lines->fd, lines->text + lines->used, HELPER_LINE - 1 - lines->used);
        if (got < 0)
            return errno == EAGAIN || errno == EINTR;
        if (got == 0)
            return false;
        lines->used += (size_t)got;
        lines->text[lines->used] = '\0';
        char *start = lines->text, *end = NULL;
        while ((end = strchr(start, '\n'))) {
            *end = '\0';
            take(context, start);
            start = end + 1;
        }
        lines->used = strlen(start);
        if (lines->used == HELPER_LINE - 1) { /* a line that long is told in pieces */
            take(context, start);
            lines->used = 0;
        }
        memmove(lines->text, start, lines->used + 1);
    }
}

void lines_close(struct lines *lines) {
    if (lines->fd >= 0)
        close(lines->fd);
    lines->fd = -1;
    lines->used = 0;
}
