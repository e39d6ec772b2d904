/* See container_check.h. Relies on /proc/<pid>/root, a process's files from its own root, and on
 * its environ.
 */
#include "container_check.h"

#include "family.h"
#include "shared/text.h"
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const int LOOKS_MS[] = {2000, 10000, 60000}; /* after the start; then every LATER_MS */
#define PIPE "CUDA_MPS_PIPE_DIRECTORY"
enum { AGAIN_MS = 1000, LATER_MS = 60000, LOOKS = sizeof(LOOKS_MS) / sizeof(LOOKS_MS[0]) };

static ino_t mount_namespace(const char *process) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof(path), "/proc/%s/ns/mnt", process);
    return stat(path, &status) ? 0 : status.st_ino;
}

/* The value of a variable in a process's environment as it began; NULL: none. False: it cannot be
 * read. */
static bool variable(const char *process, const char *name, const char **value) {
    static char text[(1 << 18) + 1]; /* of a longer environment the beginning */
    char path[64];
    size_t used = 0, size = strlen(name);
    ssize_t got = -1;
    snprintf(path, sizeof(path), "/proc/%s/environ", process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && used < sizeof(text) - 1 &&
           (got = read(fd, text + used, sizeof(text) - 1 - used)) > 0)
        used += (size_t)got;
    if (fd >= 0)
        close(fd);
    if (got != 0)
        return false;
    text[used] = '\0';
    *value = NULL;
    for (const char *at = text; at < text + used; at += strlen(at) + 1)
        if (!strncmp(at, name, size) && at[size] == '=') {
            *value = at + size + 1;
            break;
        }
    return true;
}

/* Has it loaded CUDA? Whatever computes has the driver's library in its memory. */
static bool has_cuda(const char *process) {
    char path[64], line[PATH_MAX + 128];
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%s/maps", process);
    FILE *maps = fopen(path, "re");
    while (maps && !found && fgets(line, sizeof(line), maps))
        found = strstr(line, "/libcuda.so") != NULL;
    if (maps)
        fclose(maps);
    return found;
}

/* One of ours, of any colour: {run}/{node}/d/... A task that a wrapper of MPI or a user's own
 * launcher sends to another server of ours is under MPS. */
static bool our_pipe(const struct task *task, const char *pipe) {
    char ours[MPSR_LEASE_PATH];
    return mpsr_format(ours, sizeof(ours), "%s/%s/d/", task->lease.run, task->lease.node) &&
           !strncmp(pipe, ours, strlen(ours));
}

/* What a process lacks to be a client of its server; NULL: nothing that can be told. In a container
 * nobody asks whether it computes: an image may bring CUDA late, and the way out is the same. */
static const char *lack(const struct task *task, pid_t pid, const char *pipe) {
    char process[16], path[MPSR_LEASE_PATH + 32];
    const char *what = NULL, *value = NULL;
    snprintf(process, sizeof(process), "%d", (int)pid);
    ino_t there = mount_namespace(process), here = mount_namespace("self");
    if (!there || !mpsr_format(path, sizeof(path), "/proc/%s/root%s", process, pipe))
        return NULL;
    if (there != here && access(path, F_OK) && errno == ENOENT)
        what = "does not show the pipe directory";
    else if (variable(process, PIPE, &value) && !value)
        what = "has lost " PIPE;
    else if (value && there == here && !our_pipe(task, value))
        what = "has another " PIPE;
    if (there == here && what && !has_cuda(process))
        what = NULL;
    return mount_namespace(process) == there ? what : NULL;
}

void sight_begin(struct sight *sight, long long now) {
    sight->began = now;
    sight->look_at = now + LOOKS_MS[0];
}

static long long next_look(const struct sight *sight, long long now) {
    for (int index = 0; index < LOOKS; index++)
        if (sight->began + LOOKS_MS[index] > now)
            return sight->began + LOOKS_MS[index];
    return now + LATER_MS;
}

void sight_look(struct sight *sight, const struct task *task, pid_t root, const char *pipe,
                long long now) {
    static struct family family;
    const char *what = NULL;
    pid_t found = 0;
    family.count = 0;
    family_gather(&family, root);
    for (int index = 0; index < family.count; index++) {
        const char *lacks = lack(task, family.member[index].pid, pipe);
        if (!lacks || (found && family.member[index].pid != sight->suspect))
            continue;
        found = family.member[index].pid;
        what = lacks;
    }
    if (found && found == sight->suspect) {
        char process[16];
        snprintf(process, sizeof(process), "%d", (int)found);
        bool inside = mount_namespace(process) != mount_namespace("self");
        say("%s: %s, so what computes there runs outside MPS (process %s): %s (%s)",
            inside ? "container" : "program", what, process, pipe,
            inside ? "bind it, and keep the environment: docs/how-to/containers.md"
                   : "keep CUDA_MPS_PIPE_DIRECTORY as the task has it");
        sight->look_at = 0;
        return;
    }
    sight->suspect = found;
    sight->look_at = found ? now + AGAIN_MS : next_look(sight, now);
}
