/* slurmstepd, as root, before the step's first task: the prolog's work for a job whose prolog did
 * not run.
 *
 * slurmd 22.05 sometimes skips the prolog of a batch job that starts again on the same node before
 * the credentials of its last run have expired (cred_expire, 120 s): in its log the batch script
 * (on the job's other nodes: a step) is launched, and no prolog ran. A job that asked for MPS has
 * then no lease. Where the admin named the site's hook (`prolog=` in plugstack.conf) it is run now,
 * with nothing of the user's in its environment but the job's options, which it validates as
 * always; the job's GPUs are those that slurmctld names (held.c), whatever else the job says of
 * itself. The options are the job's also when a step comes first: a step may ask for more than its
 * job did. They are user input in either case; whoever forges them has servers opened for himself,
 * which the epilog closes because there is a lease.
 *
 * Bounded; one hook at a time on a node; never fails (a failing init_post_opt drains the node):
 * whatever goes wrong, task_init refuses as before.
 */
#include "plugin.h"
#include "shared/lease.h"
#include "shared/text.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    LATE_MS = 50000, /* the hook has its own deadline, 40 s unless the site says otherwise */
    POLL_MS = 5,
    VARIABLES = 10,
    PARTITION = VARIABLES - 2, /* the last two: become_hook fills them in */
    GRES = VARIABLES - 1,
    VARIABLE_BYTES = MPSR_WIRE_MAX_BYTES + 64,
};

/* The hook's whole environment but for the job's partition and gres. False when something does not
 * fit. */
static bool environment(spank_t spank, const char *node, uint32_t job, const char *wire,
                        char text[VARIABLES][VARIABLE_BYTES], char *list[VARIABLES + 1]) {
    uid_t uid = 0;
    gid_t gid = 0;
    const char *conf = getenv("SLURM_CONF");
    if (spank_get_item(spank, S_JOB_UID, &uid) != ESPANK_SUCCESS ||
        spank_get_item(spank, S_JOB_GID, &gid) != ESPANK_SUCCESS)
        return false;
    bool fits = mpsr_format(text[0], VARIABLE_BYTES, "PATH=/usr/sbin:/usr/bin:/sbin:/bin") &&
                mpsr_format(text[1], VARIABLE_BYTES, "SLURM_JOB_ID=%u", job) &&
                mpsr_format(text[2], VARIABLE_BYTES, "SLURM_JOB_UID=%u", uid) &&
                mpsr_format(text[3], VARIABLE_BYTES, "SLURM_JOB_GID=%u", gid) &&
                mpsr_format(text[4], VARIABLE_BYTES, "SLURMD_NODENAME=%s", node) &&
                mpsr_format(text[5], VARIABLE_BYTES, MPSR_ENV_JOB_CONTROL_SCRIPT "=%s", wire) &&
                mpsr_format(text[6], VARIABLE_BYTES, MPSR_ENV_LATE "=1") &&
                mpsr_format(text[7], VARIABLE_BYTES, "%s%s",
                            conf ? "SLURM_CONF=" : "MPSR_UNUSED=", conf ? conf : "") &&
                mpsr_format(text[PARTITION], VARIABLE_BYTES, "SLURM_JOB_PARTITION=") &&
                mpsr_format(text[GRES], VARIABLE_BYTES, MPSR_ENV_LATE_GRES "=");
    for (int index = 0; index < VARIABLES; index++)
        list[index] = text[index];
    list[VARIABLES] = NULL;
    return fits;
}

/* The child: slurmctld is asked here, where wait_for's deadline holds for it as well. */
static void become_hook(const char *hook, const char *node, uint32_t job, char *const *list) {
    char *const command[] = {(char *)hook, NULL};
    static struct mpsr_held held;
    sigset_t none;
    int nothing = open("/dev/null", O_RDWR);
    dup2(nothing, STDIN_FILENO);
    dup2(nothing, STDOUT_FILENO);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    mpsr_held(job, node, &held); /* the prolog refuses a job without a GPU, and says so */
    strcat(list[PARTITION], held.partition);
    strcat(list[GRES], held.gres);
    execve(hook, command, list);
    _exit(MPSR_EXIT_NOT_EXECUTABLE);
}

static void rest(void) {
    const struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
    nanosleep(&pause, NULL);
}

static void wait_for(pid_t hook) {
    for (int waited = 0; waited < LATE_MS; waited += POLL_MS) {
        if (waitpid(hook, NULL, WNOHANG) != 0)
            return;
        rest();
    }
    kill(hook, SIGKILL);
    waitpid(hook, NULL, 0);
}

/* A directory of root's that everybody may enter, if it is not there. */
static void make_directory(const char *path) {
    if (!mkdir(path, 0755))
        chmod(path, 0755); /* whatever the umask is */
}

/* Those of a file, two levels below one that is there: no agent and no prolog may have run since
 * the node has started. */
static void make_directories(char *path) {
    char *last = strrchr(path, '/');
    *last = '\0';
    char *before = strrchr(path, '/');
    *before = '\0';
    make_directory(path);
    *before = '/';
    make_directory(path);
    *last = '/';
}

/* Several steps of a job may come at once. The file is root's alone: no user can hold the lock. -1:
 * not had in time. */
static int lock(const char *node) {
    char path[MPSR_LEASE_PATH];
    if (!mpsr_format(path, sizeof(path), MPSR_PATH_LATE_LOCK, mpsr_plugin.site.run, node))
        return -1;
    make_directories(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    for (int waited = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0; waited += POLL_MS) {
        if (waited >= LATE_MS) {
            close(fd);
            return -1;
        }
        rest();
    }
    return fd;
}

/* What the job asked for, if it is to have MPS. A batch step has the job's options; a step has its
 * own, and those of its job in its environment. */
static bool job_asked(spank_t spank, uint32_t step, char wire[MPSR_WIRE_MAX_BYTES + 1]) {
    struct mpsr_options options;
    char why[MPSR_WHY_BYTES];
    if (step == MPSR_STEP_BATCH) {
        mpsr_in_force(&mpsr_plugin.asked, &mpsr_plugin.site, &options);
        mpsr_asked_serialize(&mpsr_plugin.asked, &options, wire);
    } else if ((step >= MPSR_STEP_LARGEST && step != MPSR_STEP_INTERACTIVE) ||
               spank_getenv(spank, MPSR_ENV_JOB_CONTROL_STEP, wire, MPSR_WIRE_MAX_BYTES + 1) !=
                   ESPANK_SUCCESS ||
               !mpsr_options_parse(wire, &options, why))
        return false;
    return mpsr_options_on(&options, MPSR_OPTION_MPS);
}

/* A hook that still runs has written a lease as well: one that says refused, until all is open. */
static bool is_open(const char *path) {
    static struct mpsr_lease lease; /* a large record */
    char why[MPSR_WHY_BYTES];
    return mpsr_lease_load(path, &lease, why) == MPSR_LEASE_OK && lease.open;
}

void mpsr_remote_late(spank_t spank) {
    static char text[VARIABLES][VARIABLE_BYTES];
    char *list[VARIABLES + 1] = {NULL}, wire[MPSR_WIRE_MAX_BYTES + 1], path[MPSR_LEASE_PATH];
    char id[24];
    const char *node = getenv("SLURMD_NODENAME"); /* slurmstepd's own; the step's comes later */
    uint32_t job = 0, step = 0;
    if (!*mpsr_plugin.site.prolog || *mpsr_plugin.problem || !node ||
        spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS ||
        spank_get_item(spank, S_JOB_STEPID, &step) != ESPANK_SUCCESS ||
        !job_asked(spank, step, wire))
        return;
    snprintf(id, sizeof(id), "%u", job);
    if (!mpsr_format(path, sizeof(path), MPSR_PATH_LEASE, mpsr_plugin.site.run, node, id) ||
        is_open(path) || !environment(spank, node, job, wire, text, list))
        return;
    int held = lock(node);
    if (held < 0)
        return;
    pid_t hook = access(path, F_OK) == 0 ? -1 : fork();
    if (hook == 0)
        become_hook(mpsr_plugin.site.prolog, node, job, list);
    if (hook > 0)
        wait_for(hook);
    close(held);
}
