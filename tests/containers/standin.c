/* A SPANK plugin that stands in for pyxis (NVIDIA/pyxis, enroot below it), which tests cannot
 * fetch.
 *
 * As pyxis does (read in its source): in task_init, as the job's user, a helper makes a user and a
 * mount namespace, mounts what the image and --container-mounts ask for, and makes the image its
 * root; the task then joins the helper's namespaces (user, then mount), so that Slurm's execve
 * happens inside. Its options have pyxis' names. Mounts before the user's are enroot's own
 * (10-system.fstab): /proc, /sys, /dev, fresh /tmp and /run. The pid and ipc namespaces stay the
 * node's.
 *
 *     --container-image=DIR          the root: a directory that the user may write
 *     --container-mounts=A:B[,A:B]   what of the node is seen where
 *     --container-remap-root         the user is 0 inside
 *
 * Not shown: images (import, squashfs, overlay), enroot's hooks and its environment, entrypoints,
 * one container for all tasks of a step, --container-name, seccomp, cgroup namespaces.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <slurm/spank.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

SPANK_PLUGIN(standin, 1)

static char image[4096], mounts[8192];
static bool remap;

static int take(int which, const char *text, int remote) {
    (void)remote;
    if (which == 2)
        remap = true;
    else
        snprintf(which == 0 ? image : mounts, which == 0 ? sizeof(image) : sizeof(mounts), "%s",
                 text);
    return 0;
}

int slurm_spank_init(spank_t spank, int count, char **arguments) {
    static char names[3][24] = {"container-image", "container-mounts", "container-remap-root"};
    static char what[] = "DIR", usage[] = "[standin] as pyxis'";
    for (int which = 0; which < 3; which++) {
        struct spank_option option = {.name = names[which],
                                      .arginfo = what,
                                      .usage = usage,
                                      .has_arg = which < 2,
                                      .val = which,
                                      .cb = take};
        if (spank_option_register(spank, &option) != ESPANK_SUCCESS)
            return -1;
    }
    (void)count, (void)arguments;
    return 0;
}

static void must(bool done, const char *what) {
    if (done)
        return;
    slurm_error("standin: %s: %s", what, strerror(errno));
    _exit(1);
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
    close(fd);
}

static void make_directories(const char *path) {
    char part[4096];
    snprintf(part, sizeof(part), "%s", path);
    for (char *slash = part + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        mkdir(part, 0755);
    }
    mkdir(part, 0755);
}

static void show(const char *from, const char *to) {
    char target[4096 + 64];
    snprintf(target, sizeof(target), "%s%s", image, to);
    make_directories(target);
    must(!mount(from, target, NULL, MS_BIND | MS_REC, NULL), from);
}

/* The container's first process: builds it, says so, and stays until the task has joined. */
static void contain(uid_t uid, gid_t gid, int ready) {
    char line[64], target[4096 + 64];
    prctl(PR_SET_DUMPABLE, 1); /* as after execve, which pyxis' helper has behind it */
    must(!unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare");
    put("/proc/self/setgroups", "deny");
    snprintf(line, sizeof(line), "%u %u 1", remap ? 0 : gid, gid);
    put("/proc/self/gid_map", line);
    snprintf(line, sizeof(line), "%u %u 1", remap ? 0 : uid, uid);
    put("/proc/self/uid_map", line);
    must(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "/");
    must(!mount(image, image, NULL, MS_BIND | MS_REC, NULL), image);
    static const char *const node[] = {"/proc", "/sys", "/dev"}, *const fresh[] = {"/tmp", "/run"};
    for (size_t index = 0; index < 3; index++)
        show(node[index], node[index]);
    for (size_t index = 0; index < 2; index++) {
        snprintf(target, sizeof(target), "%s%s", image, fresh[index]);
        make_directories(target);
        must(!mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"), target);
    }
    char *rest = NULL;
    for (char *pair = strtok_r(mounts, ",", &rest); pair; pair = strtok_r(NULL, ",", &rest)) {
        char *colon = strchr(pair, ':');
        must(colon != NULL, pair);
        *colon = '\0';
        show(pair, colon + 1);
    }
    must(!chdir(image) && !syscall(SYS_pivot_root, ".", ".") && !umount2(".", MNT_DETACH), "root");
    must(write(ready, "r", 1) == 1, "pipe");
    pause();
}

static int of(pid_t pid, const char *what) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0, path);
    return fd;
}

int slurm_spank_task_init(spank_t spank, int count, char **arguments) {
    int ready[2];
    char said = 0;
    (void)spank, (void)count, (void)arguments;
    if (!*image)
        return 0;
    must(!pipe2(ready, O_CLOEXEC), "pipe");
    pid_t helper = fork();
    if (helper == 0)
        contain(getuid(), getgid(), ready[1]);
    close(ready[1]);
    if (read(ready[0], &said, 1) != 1)
        _exit(1); /* the helper has said why */
    close(ready[0]);
    int users = of(helper, "ns/user"), tree = of(helper, "ns/mnt"), root = of(helper, "root");
    kill(helper, SIGKILL);
    waitpid(helper, NULL, 0);
    must(!setns(users, CLONE_NEWUSER), "user namespace");
    must(!setns(tree, CLONE_NEWNS) && !fchdir(root), "mount namespace");
    return 0;
}
