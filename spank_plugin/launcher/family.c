/* See family.h. */
#include "family.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Parent, start time and state from /proc/<pid>/stat; the command in parentheses may hold anything,
 * so look from its end. */
static bool look(pid_t pid, pid_t *parent, unsigned long long *starttime, char *state) {
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
                       " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
                       "%*d %llu",
                       state, &above, starttime) != 3)
        return false;
    *parent = above;
    return true;
}

unsigned long long process_starttime(pid_t pid) {
    pid_t parent = 0;
    unsigned long long starttime = 0;
    char state = 0;
    return look(pid, &parent, &starttime, &state) ? starttime : 0;
}

bool family_has(const struct family *family, pid_t pid) {
    for (int index = 0; index < family->count; index++)
        if (family->member[index].pid == pid)
            return true;
    return false;
}

static bool add(struct family *family, pid_t pid, unsigned long long starttime) {
    if (family->count == FAMILY_MEMBERS || family_has(family, pid))
        return false;
    family->member[family->count].pid = pid;
    family->member[family->count++].starttime = starttime;
    return true;
}

/* Add the processes that a thread has started; true when one of them was not known. */
static bool add_children(struct family *family, const char *path) {
    FILE *file = fopen(path, "re");
    bool found = false;
    for (int pid = 0; file && fscanf(file, "%d", &pid) == 1;) {
        pid_t parent = 0;
        unsigned long long starttime = 0;
        char state = 0;
        if (look(pid, &parent, &starttime, &state) && family_has(family, parent))
            found |= add(family, pid, starttime);
    }
    if (file)
        fclose(file);
    return found;
}

/* From every member to what its threads have started. What is found on the way is looked at too. */
static bool descend(struct family *family) {
    bool found = false;
    for (int index = 0; index < family->count; index++) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/%d/task", (int)family->member[index].pid);
        DIR *tasks = opendir(path);
        for (const struct dirent *entry = tasks ? readdir(tasks) : NULL; entry;
             entry = readdir(tasks)) {
            char children[64];
            snprintf(children, sizeof(children), "/proc/%d/task/%d/children",
                     (int)family->member[index].pid, atoi(entry->d_name));
            found |= add_children(family, children);
        }
        if (tasks)
            closedir(tasks);
    }
    return found;
}

/* The same from the other side, for kernels without CONFIG_PROC_CHILDREN: every process of the node
 * is asked for its parent. */
static bool sweep(struct family *family) {
    DIR *proc = opendir("/proc");
    bool found = false;
    for (const struct dirent *entry = proc ? readdir(proc) : NULL; entry; entry = readdir(proc)) {
        pid_t pid = (pid_t)atoi(entry->d_name), parent = 0;
        unsigned long long starttime = 0;
        char state = 0;
        if (pid > 0 && look(pid, &parent, &starttime, &state) && family_has(family, parent))
            found |= add(family, pid, starttime);
    }
    if (proc)
        closedir(proc);
    return found;
}

/* Until nothing new is found: members may be starting others meanwhile. */
void family_complete(struct family *family) {
    bool quick = access("/proc/thread-self/children", R_OK) == 0;
    while (quick ? descend(family) : sweep(family))
        ;
}

void family_gather(struct family *family, pid_t root) {
    unsigned long long starttime = process_starttime(root);
    if (starttime)
        add(family, root, starttime);
    family_complete(family);
}

bool family_gone(const struct family *family) {
    for (int index = 0; index < family->count; index++)
        if (process_starttime(family->member[index].pid) == family->member[index].starttime)
            return false;
    return true;
}

void family_kill(struct family *family) {
    family_complete(family);
    for (int index = 0; index < family->count; index++)
        if (process_starttime(family->member[index].pid) == family->member[index].starttime)
            kill(family->member[index].pid, SIGKILL);
}

bool family_stopped(pid_t root) {
    static struct family family;
    family.count = 0;
    family_gather(&family, root);
    for (int index = 0; index < family.count; index++) {
        pid_t parent = 0;
        unsigned long long starttime = 0;
        char state = 0;
        if (look(family.member[index].pid, &parent, &starttime, &state) &&
            (state == 'T' || state == 't'))
            return true;
    }
    return false;
}
