/* See task.h. */
#include "task.h"

#include "mpiexec.h"

#include "shared/namespace.h"
#include "shared/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    SUPERVISORS = 256, /* of one task at once; more share a number */
    STARTS = 4096, /* of a batch script that each have a number of their own; later ones take any
                      that is free */
};

static long environment_number(const char *name, long otherwise) {
    const char *text = getenv(name);
    long value = 0;
    return text && mpsr_number(text, 0, UINT_MAX, &value) ? value : otherwise;
}

static bool lease_path(char path[MPSR_LEASE_PATH], char why[MPSR_WHY_BYTES]) {
    const char *given = getenv(MPSR_ENV_LEASE), *job = getenv("SLURM_JOB_ID");
    const char *node = getenv("SLURMD_NODENAME");
    if (given && *given) {
        ssize_t length =
            strstr(given, "/.here/jobs/") ? readlink(given, path, MPSR_LEASE_PATH) : -1;
        if (length > 0 && length < MPSR_LEASE_PATH) { /* trusted or not by where it leads */
            path[length] = '\0';
            return true;
        }
        return mpsr_copy(path, MPSR_LEASE_PATH, given);
    }
    snprintf(why, MPSR_WHY_BYTES, "no SLURM_JOB_ID and SLURMD_NODENAME: not in a Slurm job");
    return job && node &&
           mpsr_format(path, MPSR_LEASE_PATH, MPSR_PATH_LEASE, MPSR_PATH_RUN, node, job);
}

/* Most components of a heterogeneous job (Slurm's own limit). */
enum { COMPONENTS = 128 };

/* Is this process in the job? In a heterogeneous job SLURM_JOB_ID names the first component in all
 * of them; the others have variables of their own. */
static bool in_job(long job) {
    char name[48];
    bool found = environment_number("SLURM_JOB_ID", job) == job;
    for (int component = 0; !found && component < COMPONENTS; component++) {
        snprintf(name, sizeof(name), "SLURM_JOB_ID_HET_GROUP_%d", component);
        found = environment_number(name, -1) == job;
    }
    return found;
}

static int read_lease(struct task *task, char why[MPSR_WHY_BYTES]) {
    char path[MPSR_LEASE_PATH] = "", reason[MPSR_WHY_BYTES] = "";
    if (!lease_path(path, why) || mpsr_lease_load(path, &task->lease, why) != MPSR_LEASE_OK)
        return MPSR_EXIT_REFUSED;
    if (task->lease.uid != mpsr_host_uid() || !in_job(task->lease.job)) {
        snprintf(why, MPSR_WHY_BYTES, "lease of another job or user: %.200s", path);
        return MPSR_EXIT_REFUSED;
    }
    if (!task->lease.open) {
        snprintf(why, MPSR_WHY_BYTES, "%.240s",
                 *task->lease.reason ? task->lease.reason : "no reason given");
        return MPSR_EXIT_REFUSED;
    }
    const char *options = getenv(MPSR_ENV_OPTIONS);
    task->options = task->lease.options;
    if (options && !mpsr_options_parse(options, &task->options, reason)) {
        snprintf(why, MPSR_WHY_BYTES, MPSR_ENV_OPTIONS ": %.200s", reason);
        return MPSR_EXIT_USAGE;
    }
    mpsr_options_serialize(&task->options, task->wire);
    return TASK_OK;
}

static bool secret(char text[33]) {
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
        return false;
    for (size_t index = 0; index < sizeof(bytes); index++)
        snprintf(text + 2 * index, 3, "%02x", bytes[index]);
    return true;
}

/* A file of this number, held until this process ends. `fresh`: nobody has had it before. -1: not
 * to be had. */
static int hold_number(const struct task *task, long number, bool fresh) {
    char path[MPSR_LEASE_PATH];
    if (!mpsr_format(path, sizeof(path), "%s/t%ld.%ld", task->job_dir, task->step, number))
        return -1;
    return open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | (fresh ? O_EXCL : 0), 0600);
}

/* Of a batch script or of salloc's shell: each start of a program is a task of its own. Ranks of an
 * mpiexec begin with their own numbers: they come in any order, and the same when the job is
 * started again. */
static bool claim_fresh(struct task *task, const struct mpiexec *mpiexec) {
    for (long number = mpiexec ? mpiexec->rank : 0; number < STARTS;
         number += mpiexec ? mpiexec->size : 1) {
        int fd = hold_number(task, number, true);
        if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB)) {
            task->rank = number;
            return true;
        }
        if (fd >= 0)
            close(fd);
        else if (errno != EEXIST)
            break;
    }
    return false;
}

/* The number under which this supervisor is known: the task's rank, or the next free one when
 * another supervisor of the same task has that (one inside another). The descriptor is kept: its
 * lock ends with this process. A job directory that cannot be written costs only this. */
static void claim_number(struct task *task, const struct mpiexec *mpiexec) {
    long tasks = mpiexec ? mpiexec->size : environment_number("SLURM_STEP_NUM_TASKS", 1);
    long number = task->rank;
    if ((task->step == MPSR_STEP_BATCH || task->step == MPSR_STEP_INTERACTIVE) &&
        claim_fresh(task, mpiexec))
        return;
    for (int tries = 0; tries<SUPERVISORS; tries++, number += tasks> 0 ? tasks : 1) {
        int fd = hold_number(task, number, false);
        if (fd < 0)
            return;
        if (!flock(fd, LOCK_EX | LOCK_NB)) {
            task->rank = number;
            return;
        }
        close(fd);
    }
}

/* Where state is spilled: below the site's place, else below the working directory. A task whose
 * working directory is gone, or leaves no room in PATH_MAX for an entry, goes on without. */
static void spill_directory(struct task *task, const char *job) {
    char directory[MPSR_LEASE_PATH];
    errno = ENAMETOOLONG;
    if (*task->lease.spill
            ? mpsr_format(task->spill, sizeof(task->spill), "%s/%s", task->lease.spill, job)
            : getcwd(directory, sizeof(directory)) && *directory == '/' &&
                  mpsr_format(task->spill, sizeof(task->spill), "%s/.mpsr-%s", directory, job))
        return;
    task->spill[0] = '\0';
    dprintf(2, MPSR_TAG ": spill: no directory for it below the working directory: %s\n",
            strerror(errno));
    dprintf(2, "  kept state of this task is not written to disk: a requeue begins from scratch\n");
}

static bool paths(struct task *task, const struct mpiexec *mpiexec, char why[MPSR_WHY_BYTES]) {
    char job[24];
    const struct mpsr_lease *lease = &task->lease;
    snprintf(job, sizeof(job), "%ld", lease->job);
    bool good = mpsr_format(task->job_dir, sizeof(task->job_dir), MPSR_PATH_JOB_DIR, lease->run,
                            lease->node, job);
    if (good)
        claim_number(task, mpiexec);
    good = good && mpsr_format(task->keeper, sizeof(task->keeper), "%s/k%ld.%ld", task->job_dir,
                               task->step, task->rank);
    if (!good)
        snprintf(why, MPSR_WHY_BYTES, "job directory: longer than %d bytes", MPSR_LEASE_PATH - 1);
    spill_directory(task, job);
    if (good && (!secret(task->token) || !secret(task->standby_token))) {
        snprintf(why, MPSR_WHY_BYTES, "no random bytes from the kernel: %s", strerror(errno));
        return false;
    }
    return good;
}

/* Does CUDA_VISIBLE_DEVICES say what the plugin or a supervisor has put there for all ranks of a
 * node, and no wrapper for this one? */
static bool visible_to_all(const struct mpsr_lease *lease, const char *visible) {
    char uuids[MPSR_VISIBLE_BYTES], places[MPSR_VISIBLE_BYTES];
    struct mpsr_visible all;
    mpsr_visible_given(lease, NULL, NULL, &all);
    mpsr_visible_joined(lease, 0, &all);
    mpsr_visible_uuids(lease, &all, uuids);
    mpsr_visible_places(&all, places);
    bool ours = !visible || !strcmp(visible, places) || !strcmp(visible, uuids);
    for (int index = 0; !ours && !mpsr_lease_together(lease) && index < lease->gpus; index++)
        ours = !strcmp(lease->gpu[index].uuid, visible);
    return ours;
}

int task_read(struct task *task, int count, char **arguments, char why[MPSR_WHY_BYTES]) {
    memset(task, 0, sizeof(*task));
    char *program = getenv(MPSR_ENV_ARGV0);
    if (program) {
        arguments[0] = program;
        task->command = arguments;
    } else if (count > 1) {
        task->command = arguments + 1;
    } else {
        snprintf(why, MPSR_WHY_BYTES, "no program given: mpsr-launch PROGRAM [ARGUMENT...]");
        return MPSR_EXIT_USAGE;
    }
    int status = read_lease(task, why);
    if (status != TASK_OK)
        return status;
    /* started from the script without srun: it has the script's own number */
    task->step = environment_number("SLURM_STEP_ID", MPSR_STEP_BATCH);
    task->rank = environment_number("SLURM_PROCID", 0);
    task->local = environment_number("SLURM_LOCALID", 0);
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    struct mpiexec mpiexec;
    bool started = !program && mpiexec_of(&mpiexec); /* else srun has started it */
    if (started) {
        task->rank = mpiexec.rank;
        task->local = mpiexec.local;
        if (visible_to_all(&task->lease, visible))
            visible = NULL;
    }
    mpsr_visible_given(&task->lease, visible, getenv("SLURM_STEP_GPUS"), &task->visible);
    task->given = task->visible.count;
    mpsr_visible_joined(&task->lease, task->local, &task->visible);
    task->gpu = task->visible.gpu[0];
    program_digest(task->command, task->program);
    program_strike(task->command, task->strike);
    return paths(task, started ? &mpiexec : NULL, why) ? TASK_OK : MPSR_EXIT_REFUSED;
}
