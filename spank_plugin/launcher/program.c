/* See program.h. The digest is FNV-1a of 64 bits: it tells the programs of one job apart, and
 * nobody has a reason to look for two that collide: they would be his own. */
#include "program.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char BCAST[] = "slurm_bcast_"; /* srun --bcast: slurm_bcast_<job>.<step>_<node> */
enum { CONTENT_MAX = 16 << 20 };            /* bytes of such a file that are read: some 20 ms */

static uint64_t add(uint64_t digest, const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t index = 0; index < size; index++)
        digest = (digest ^ bytes[index]) * 0x100000001b3ULL;
    return digest;
}

static uint64_t add_text(uint64_t digest, const char *text) {
    return add(digest, text, strlen(text) + 1);
}

/* As execvp looks for it; a command that is not found stands for itself. Links are not followed: a
 * program may go by the name it is called with. */
static void resolve(const char *command, char path[PATH_MAX]) {
    const char *from = strchr(command, '/') ? NULL : getenv("PATH");
    while (from && *from) {
        size_t length = strcspn(from, ":");
        int size = snprintf(path, PATH_MAX, "%.*s/%s", (int)length, length ? from : ".", command);
        if (size > 0 && size < PATH_MAX && !access(path, X_OK))
            return;
        from += length + (from[length] == ':');
    }
    snprintf(path, PATH_MAX, "%s", command);
}

static uint64_t add_content(uint64_t digest, const char *path) {
    unsigned char buffer[65536];
    ssize_t got = 0, all = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && all < CONTENT_MAX && (got = read(fd, buffer, sizeof(buffer))) > 0) {
        digest = add(digest, buffer, (size_t)got);
        all += got;
    }
    if (fd >= 0)
        close(fd);
    return digest;
}

void program_digest(char *const command[], char text[PROGRAM_DIGEST]) {
    char path[PATH_MAX];
    uint64_t digest = 0xcbf29ce484222325ULL;
    digest = add_text(digest, getcwd(path, sizeof(path)) ? path : "");
    resolve(command[0], path);
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (!strncmp(name, BCAST, sizeof(BCAST) - 1))
        digest = add_content(digest, path);
    else
        digest = add_text(digest, path);
    for (int index = 1; command[index]; index++)
        digest = add_text(digest, command[index]);
    snprintf(text, PROGRAM_DIGEST, "%016llx", (unsigned long long)digest);
}

/* Faults on purpose: nobody counts them. */
static const char DRILL[] = "resilience.drill.culprit";
static const char *const INTERPRETERS[] = {"python", "bash",    "dash",   "sh",    "perl",
                                           "ruby",   "julia",   "node",   "lua",   "java",
                                           "R",      "Rscript", "octave", "matlab"};
static const char *const WRAPPERS[] = {"apptainer", "singularity", "enroot", "podman",  "env",
                                       "nsys",      "ncu",         "nice",   "time",    "timeout",
                                       "numactl",   "taskset",     "stdbuf", "xvfb-run"};

static bool named(const char *path, const char *const names[], size_t count) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    for (size_t index = 0; index < count; index++) {
        size_t length = strlen(names[index]);
        if (!strncmp(name, names[index], length) &&
            !name[length + strspn(name + length, "0123456789.")])
            return true;
    }
    return false;
}

/* A row of digits counts as one digit. */
static uint64_t add_name(uint64_t digest, const char *text) {
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            digest = add(digest, text, 1);
        else if (text[1] < '0' || text[1] > '9')
            digest = add(digest, "0", 1);
    }
    return add(digest, "", 1);
}

static uint64_t add_version(uint64_t digest, const char *path) {
    struct stat found;
    if (stat(path, &found) || !S_ISREG(found.st_mode))
        return digest;
    long long version[3] = {found.st_size, found.st_mtim.tv_sec, found.st_mtim.tv_nsec};
    return add(digest, version, sizeof(version));
}

void program_strike(char *const command[], char text[PROGRAM_DIGEST]) {
    char path[PATH_MAX], directory[PATH_MAX];
    uint64_t digest = 0xcbf29ce484222325ULL;
    resolve(command[0], path);
    bool wrapped = named(path, WRAPPERS, sizeof(WRAPPERS) / sizeof(WRAPPERS[0]));
    bool script = named(path, INTERPRETERS, sizeof(INTERPRETERS) / sizeof(INTERPRETERS[0]));
    if (*path != '/' || wrapped || script)
        digest = add_name(digest, getcwd(directory, sizeof(directory)) ? directory : "");
    digest = add_version(add_name(digest, path), path);
    for (int index = 1; command[index] && (wrapped || script); index++) {
        digest = add_version(add_name(digest, command[index]), command[index]);
        if (script && !strcmp(command[index], DRILL)) {
            *text = '\0';
            return;
        }
        script = script && command[index][0] == '-';
    }
    snprintf(text, PROGRAM_DIGEST, "%016llx", (unsigned long long)digest);
}
