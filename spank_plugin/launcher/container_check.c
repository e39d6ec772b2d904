/* See container_check.h. Relies on /proc/<pid>/root, a process's files from its own root, and on
 * its environ.
 */
#include "container_check.h"

#include "family.h"
#include "shared/text.h"
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const int LOOKS_MS[] = {2000, 10000, 60000}; /* after the start */
#define PIPE "CUDA_MPS_PIPE_DIRECTORY"
enum { AGAIN_MS = 1000, LOOKS = sizeof(LOOKS_MS) / sizeof(LOOKS_MS[0]) };

static ino_t mount_namespace(const char *process) {
    char path[64];
    struct stat status;
    snprintf(path, sizeof(path), "/proc/%s/ns/mnt", process);
    return stat(path, &status) ? 0 : status.st_ino;
}

static bool has_variable(const char *process) {
    static char text[1 << 18]; /* a longer environment is taken to have it */
    static const char NAME[] = "\0" PIPE "=";
    char path[64];
    snprintf(path, sizeof(path), "/proc/%s/environ", process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 1; /* a NUL before the first one, too */
    ssize_t got = -1;
    while (fd >= 0 && used < sizeof(text) && (got = read(fd, text + used, sizeof(text) - used)) > 0)
        used += (size_t)got;
    if (fd >= 0)
        close(fd);
    return got != 0 || memmem(text, used, NAME, sizeof(NAME) - 1) != NULL;
}

/* What a process in a container lacks to be a client of its server; NULL: nothing that can be told.
 */
static const char *lack(pid_t pid, const char *pipe) {
    char process[16], path[1100];
    const char *what = NULL;
    snprintf(process, sizeof(process), "%d", (int)pid);
    ino_t there = mount_namespace(process);
    if (!there || there == mount_namespace("self") ||
        !mpsr_format(path, sizeof(path), "/proc/%s/root%s", process, pipe))
        return NULL;
    if (access(path, F_OK) && errno == ENOENT)
        what = "does not show the pipe directory";
    else if (!has_variable(process))
        what = "has lost " PIPE;
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
    return 0;
}

void sight_look(struct sight *sight, pid_t root, const char *pipe, long long now) {
    static struct family family;
    const char *what = NULL;
    pid_t found = 0;
    family.count = 0;
    family_gather(&family, root);
    for (int index = 0; index < family.count; index++) {
        const char *lacks = lack(family.member[index].pid, pipe);
        if (!lacks || (found && family.member[index].pid != sight->suspect))
            continue;
        found = family.member[index].pid;
        what = lacks;
    }
    if (found && found == sight->suspect) {
        say("container: %s, so what computes there runs outside MPS (process %d): %s (bind it, and "
            "keep the environment: docs/how-to/containers.md)",
            what, (int)found, pipe);
        sight->look_at = 0;
        return;
    }
    sight->suspect = found;
    sight->look_at = found ? now + AGAIN_MS : next_look(sight, now);
}
