/* See child.h. */
#include "child.h"

#include "agent.h"
#include "hook.h"
#include "shared/gpu_environment.h"
#include "shared/text.h"
#include "signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Lowest number for descriptors that a program inherits: out of the way of shells, which use 3 to 9
 * for their own. */
enum { FIRST_FD = 10 };

static void set_number(const char *name, long value) {
    char text[24];
    snprintf(text, sizeof(text), "%ld", value);
    setenv(name, text, 1);
}

void child_gpu_environment(const struct task *task, const char *pipe, const char *partition) {
    struct mpsr_gpu_environment gpu;
    mpsr_gpu_environment(&task->lease, &task->options, &task->visible, pipe, partition, &gpu);
    for (int index = 0; index < gpu.count; index++) {
        if (gpu.variable[index].value)
            setenv(gpu.variable[index].name, gpu.variable[index].value, 1);
        else
            unsetenv(gpu.variable[index].name);
    }
}

/* A standby reads and writes nothing: the real streams wait at other numbers until it is promoted.
 */
static void park_streams(const struct task *task) {
    char path[MPSR_LEASE_PATH + 64], parked[64];
    snprintf(path, sizeof(path), "%s/standby-%ld.%ld.err", task->job_dir, task->step, task->rank);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), number[3];
    for (int stream = 0; stream < 3; stream++) {
        number[stream] = fcntl(stream, F_DUPFD, FIRST_FD);
        if (number[stream] < 0) /* closed: there is nothing to put back but nothing */
            number[stream] = fcntl(null, F_DUPFD, FIRST_FD);
    }
    snprintf(parked, sizeof(parked), "%d,%d,%d", number[0], number[1], number[2]);
    setenv(MPSR_ENV_STDIO, parked, 1);
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    dup2(null, 0);
    dup2(null, 1);
    dup2(file >= 0 ? file : null, 2);
}

static _Noreturn void become(const struct task *task, const struct child *child, const char *pipe,
                             const char *partition, int program_end, int failure, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a task whose supervisor was killed has ended for Slurm */
    if (getppid() != parent)
        _exit(MPSR_EXIT_FAILED);
    child_gpu_environment(task, pipe, partition);
    set_number(MPSR_ENV_FD, fcntl(program_end, F_DUPFD, FIRST_FD));
    setenv(MPSR_ENV_ROLE, child->role, 1);
    setenv(MPSR_ENV_KEEPER, task->keeper, 1);
    bool standby = !strcmp(child->role, "standby"); /* it gets the other token with `promote` */
    setenv(MPSR_ENV_TOKEN, standby ? task->standby_token : task->token, 1);
    setenv(MPSR_ENV_PROGRAM, task->program, 1);
    setenv(MPSR_ENV_COLOR, child->color, 1);
    setenv(MPSR_ENV_SPILL, task->spill, 1);
    setenv(MPSR_ENV_OPTIONS, task->wire, 1);
    hook_environment(task);
    unsetenv(MPSR_ENV_ARGV0);
    unsetenv(MPSR_ENV_STDIO);
    if (standby)
        park_streams(task);
    signals_give_back();
    execvp(task->command[0], task->command);
    int why = errno;
    ssize_t told = write(failure, &why, sizeof(why));
    _exit(told == sizeof(why) ? MPSR_EXIT_NOT_FOUND : MPSR_EXIT_FAILED);
}

int child_start(struct child *child, const struct task *task, const char *role, const char *color,
                const char *pipe, const char *partition) {
    int ends[2], failure[2], why = 0;
    memset(child, 0, sizeof(*child));
    child->socket = -1;
    child->role = role;
    mpsr_copy(child->color, sizeof(child->color), color);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return errno;
    if (pipe2(failure, O_CLOEXEC)) {
        why = errno;
        close(ends[0]);
        close(ends[1]);
        return why;
    }
    pid_t parent = getpid();
    child->pid = fork();
    if (child->pid == 0)
        become(task, child, pipe, partition, ends[1], failure[1], parent);
    why = child->pid < 0 ? errno : 0;
    close(ends[1]);
    close(failure[1]);
    /* returns at once: the descriptor closes when the program has been executed */
    if (!why && read(failure[0], &why, sizeof(why)) != sizeof(why))
        why = 0;
    close(failure[0]);
    child->socket = ends[0];
    if (why) {
        child_forget(child);
        return why;
    }
    child->starttime = process_starttime(child->pid);
    return 0;
}

void child_say(const struct child *child, const struct packet *packet) {
    packet_send(child->socket, packet);
}

void child_forget(struct child *child) {
    if (child->socket >= 0)
        close(child->socket);
    memset(child, 0, sizeof(*child));
    child->socket = -1;
}
