/* mpsr-enter [-c FILE]... [-r LABEL] UID GID GROUPS PROGRAM [ARGUMENT]...: becomes a program that
 * root starts as a user, as far from root's own processes as the kernel allows
 * (docs/explanation/enclosures.md).
 *
 * Before it gives up root's rights it writes itself into each cgroup.procs named by -c, so that no
 * process of the program is ever outside, and takes back what root's services have against the OOM
 * killer. Then: no setuid program gives rights any more, the user's groups (comma separated; "-"
 * for none), gid and uid, all three of each, and the program, looked for on PATH. 0 0 stays root.
 *
 * -r is for nodes without cgroups: a process of root's named by LABEL stays as the parent of the
 * program and of all its orphans (a "reaper") until the last of them has gone, so that they can be
 * found by their descent. It ends as soon as there are none.
 *
 * Exit status: the program's; 127 or 126 when it cannot be executed, as in a shell; 125 for a
 * failure of our own, with a line on standard error. Relies on its caller for closed descriptors.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OURS = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127, BY_SIGNAL = 128 };

static volatile sig_atomic_t program; /* of a reaper: the program while it runs */

static _Noreturn void fail(const char *what, const char *observed) {
    fprintf(stderr, "mpsr: enter: %s: %s\n", what, observed);
    _exit(OURS);
}

static _Noreturn void fail_errno(const char *what) {
    fail(what, strerror(errno));
}

static void put(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        fail_errno(path);
    close(file);
}

static unsigned number(const char *text) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || end == text || *end || value >= UINT_MAX)
        fail("not a user or group", text);
    return (unsigned)value;
}

static void become(unsigned uid, unsigned gid, char *groups) {
    size_t count = 0, room = 1;
    for (const char *at = groups; *at; at++)
        room += *at == ',';
    gid_t *list = calloc(room, sizeof(*list));
    if (!list)
        fail_errno("groups");
    if (strcmp(groups, "-") != 0)
        for (char *rest = groups, *one; (one = strsep(&rest, ","));)
            list[count++] = number(one);
    if (setgroups(count, list) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
        fail_errno("cannot become the user");
    free(list);
}

static void end_program(int number_of_signal) {
    (void)number_of_signal;
    if (program > 0)
        kill(program, SIGKILL);
}

/* The reaper's life. The caller has gone before the program ended: nobody wants that any more. */
static _Noreturn void reap(int report) {
    siginfo_t ended = {0};
    while (waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT) == 0 || errno == EINTR) {
        int status = 0;
        bool ours = ended.si_pid == program;
        if (ours)
            program = 0; /* from here on the number may be another's */
        if (ended.si_pid <= 0 || waitpid(ended.si_pid, &status, 0) < 0 || !ours)
            continue;
        ssize_t told = write(report, &status, sizeof(status));
        (void)told; /* nobody may be listening: then nobody waits either */
        close(report);
    }
    _exit(0);
}

/* Returns in the process that becomes the program. */
static void leave_reaper(void) {
    int report[2], status;
    if (pipe2(report, O_CLOEXEC))
        fail_errno("pipe");
    pid_t caller = getpid(), reaper = fork();
    if (reaper < 0)
        fail_errno("fork");
    if (reaper > 0) {
        close(report[1]);
        if (read(report[0], &status, sizeof(status)) != sizeof(status))
            fail("reaper", "has ended");
        _exit(WIFSIGNALED(status) ? BY_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status));
    }
    close(report[0]);
    setsid();
    signal(SIGTERM, end_program);
    signal(SIGPIPE, SIG_IGN);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) || prctl(PR_SET_PDEATHSIG, SIGTERM))
        fail_errno("reaper");
    pid_t child = getppid() == caller ? fork() : -1;
    if (child < 0)
        fail_errno("reaper");
    if (child == 0) {
        signal(SIGTERM, SIG_DFL);
        signal(SIGPIPE, SIG_DFL);
        setsid(); /* a group without the reaper in it, which can be ended as one */
        return;
    }
    program = child;
    if (getppid() != caller)
        kill(child, SIGKILL);
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int stream = 0; stream < 3; stream++)
        dup2(nothing, stream);
    close(nothing);
    reap(report[1]);
}

int main(int count, char **words) {
    int option;
    const char *label = NULL;
    while ((option = getopt(count, words, "+c:r:")) != -1) {
        if (option == 'c')
            put(optarg, "0");
        else if (option == 'r')
            label = optarg;
        else
            _exit(OURS);
    }
    if (count - optind < 4)
        fail("usage", "mpsr-enter [-c FILE]... [-r LABEL] UID GID GROUPS PROGRAM [ARGUMENT]...");
    unsigned uid = number(words[optind]), gid = number(words[optind + 1]);
    put("/proc/self/oom_score_adj", "0");
    if (label)
        leave_reaper();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail_errno("no_new_privs");
    if (uid || gid)
        become(uid, gid, words[optind + 2]);
    char **program_words = words + optind + 3;
    execvp(program_words[0], program_words);
    int wrong = errno;
    fprintf(stderr, "%s\n", wrong == ENOENT ? "not found" : strerror(wrong));
    return wrong == ENOENT ? NOT_FOUND : NOT_EXECUTABLE;
}
