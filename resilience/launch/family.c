/* See family.h. */
#include "family.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Parent and start time from /proc/<pid>/stat; the command in parentheses may hold anything, so
 * look from its end. */
static bool look(pid_t pid, pid_t *parent, unsigned long long *starttime) {
    char path[32], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (length <= 0)
        return false;
    text[length] = '\0';
    const char *end = strrchr(text, ')');
    int above = 0;
    if (!end || sscanf(end + 1,
                       " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
                       "%*d %llu",
                       &above, starttime) != 2)
        return false;
    *parent = above;
    return true;
}

unsigned long long process_starttime(pid_t pid) {
    pid_t parent = 0;
    unsigned long long starttime = 0;
    return look(pid, &parent, &starttime) ? starttime : 0;
}

static bool has(const struct family *family, pid_t pid) {
    for (int index = 0; index < family->count; index++)
        if (family->member[index].pid == pid)
            return true;
    return false;
}

static bool add(struct family *family, pid_t pid, unsigned long long starttime) {
    if (family->count == FAMILY_MEMBERS || has(family, pid))
        return false;
    family->member[family->count].pid = pid;
    family->member[family->count++].starttime = starttime;
    return true;
}

/* One walk over /proc; true when it found a child of a member that was not known. */
static bool walk(struct family *family) {
    DIR *proc = opendir("/proc");
    bool found = false;
    for (const struct dirent *entry = proc ? readdir(proc) : NULL; entry; entry = readdir(proc)) {
        pid_t pid = (pid_t)atoi(entry->d_name), parent = 0;
        unsigned long long starttime = 0;
        if (pid > 0 && look(pid, &parent, &starttime) && has(family, parent))
            found |= add(family, pid, starttime);
    }
    if (proc)
        closedir(proc);
    return found;
}

void family_gather(struct family *family, pid_t root) {
    unsigned long long starttime = process_starttime(root);
    if (starttime)
        add(family, root, starttime);
    while (walk(family))
        ;
}

void family_kill(struct family *family) {
    while (walk(family))
        ;
    for (int index = 0; index < family->count; index++)
        if (process_starttime(family->member[index].pid) == family->member[index].starttime)
            kill(family->member[index].pid, SIGKILL);
}
