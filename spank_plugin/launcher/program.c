/* See program.h. The digest is FNV-1a of 64 bits: it tells the programs of one job apart, and
 * nobody has a reason to look for two that collide: they would be his own. */
#include "program.h"

#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
