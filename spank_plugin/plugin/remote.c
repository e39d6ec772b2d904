/* slurmstepd: the step's options again, the lease, and the supervisor in front of the task.
 *
 * Everything happens in task_init, in the task's own process: a refusal there fails the job with
 * status 1 and leaves the node alone. The process ends itself, so that it is refused under
 * `optional` in plugstack.conf as well as under `required`. A batch script (and salloc's
 * interactive step) gets the environment of MPS but no supervisor: `scancel --batch` and
 * `--signal=B:` reach only its first process. Relies on S_JOB_ARGV being the live array
 * that Slurm reads back: undocumented, but so on 22.05, 24.11 and 26.05 (tried).
 */
#include "plugin.h"
#include "shared/gpu_environment.h"
#include "shared/lease.h"
#include "shared/namespace.h"
#include "shared/text.h"
#include "shared/visible.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What plain commands of a batch script need, and what a step without MPS must not inherit from it.
 */
static const char *const MPS_VARIABLES[] = {
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
    "CUDA_MPS_SM_PARTITION",
    MPSR_ENV_OPTIONS,
    MPSR_ENV_LEASE,
    MPSR_ENV_ARGV0,
    MPSR_ENV_LAUNCHER,
    NULL,
};

int mpsr_remote_init(spank_t spank) {
    mpsr_enter_partition(spank);
    return mpsr_register(spank);
}

/* Ends the task: one line, a hint, status 1. */
static void refuse(const char *line, const char *hint) {
    slurm_error("%s", line);
    if (*hint)
        slurm_error("  %s", hint);
    _exit(MPSR_EXIT_FAILED);
}

/* Options that reached a batch step as variables only: twins under --export=NONE come without a
 * callback (22.05). */
static void ask_environment(spank_t spank) {
    for (int index = 0; index < MPSR_OPTIONS; index++) {
        char name[MPSR_WHY_BYTES], text[MPSR_WHY_BYTES];
        if (mpsr_plugin.asked.layer[index] != MPSR_LAYER_NONE ||
            !mpsr_option_variable(index, name, sizeof(name)) ||
            spank_getenv(spank, name, text, sizeof(text)) != ESPANK_SUCCESS)
            continue;
        if (!mpsr_ask(&mpsr_plugin.asked, &mpsr_plugin.site, index, text, mpsr_plugin.problem))
            return;
    }
}

/* Before any container. A step that did not ask costs nothing more. */
void mpsr_remote_options(spank_t spank) {
    struct mpsr_options options;
    uint32_t step = 0;
    ask_environment(spank);
    if (spank_get_item(spank, S_JOB_STEPID, &step) == ESPANK_SUCCESS && step == MPSR_STEP_BATCH &&
        !*mpsr_plugin.problem)
        mpsr_batch_options(spank);
    mpsr_in_force(&mpsr_plugin.asked, &mpsr_plugin.site, &options);
    if (mpsr_options_on(&options, MPSR_OPTION_MPS))
        mpsr_launcher_hold();
    mpsr_remote_late(spank);
}

static void leave_unsupervised(spank_t spank) {
    char ours[MPSR_WIRE_MAX_BYTES + 1];
    if (spank_getenv(spank, MPSR_ENV_OPTIONS, ours, sizeof(ours)) != ESPANK_SUCCESS)
        return; /* nothing of ours in this environment: nothing to take back */
    for (const char *const *name = MPS_VARIABLES; *name; name++)
        spank_unsetenv(spank, *name);
    mpsr_binds_remove(spank);
}

/* False: the job has none, and is to run as without us. */
static bool load_lease(spank_t spank, char path[MPSR_LEASE_PATH], struct mpsr_lease *lease) {
    uint32_t job = 0;
    char node[MPSR_LEASE_WORD] = "", id[24], why[MPSR_WHY_BYTES] = "", line[2 * MPSR_LEASE_PATH];
    if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS ||
        spank_getenv(spank, "SLURMD_NODENAME", node, sizeof(node)) != ESPANK_SUCCESS)
        refuse(MPSR_TAG ": task: no job id or node name from Slurm", "");
    snprintf(id, sizeof(id), "%u", job);
    if (!mpsr_format(path, MPSR_LEASE_PATH, MPSR_PATH_LEASE, mpsr_plugin.site.run, node, id))
        refuse(MPSR_TAG ": lease: path too long", "");
    enum mpsr_lease_answer answer = mpsr_lease_load(path, lease, why);
    if (answer == MPSR_LEASE_OK && (lease->job != (long)job || lease->uid != mpsr_host_uid())) {
        answer = MPSR_LEASE_BAD;
        snprintf(why, sizeof(why), "of another job or user: %.200s", path);
    }
    if (answer == MPSR_LEASE_OK && lease->without && !mpsr_asked_itself(&mpsr_plugin.asked))
        return false;
    if (answer == MPSR_LEASE_OK && !lease->open)
        mpsr_copy(why, sizeof(why), *lease->reason ? lease->reason : "no reason given");
    if (answer == MPSR_LEASE_OK && lease->open)
        return true;
    snprintf(line, sizeof(line), MPSR_TAG ": job %u: cannot have MPS on %s: %s", job, node, why);
    refuse(line, answer == MPSR_LEASE_ABSENT
                     ? "ask for it when the job is submitted (sbatch --mps), or use srun --mps=off"
                     : "");
    return false;
}

/* Does a name that is the same on each node lead to what we mean? */
static bool leads_to(const char *link, const char *target) {
    char found[MPSR_LEASE_PATH];
    ssize_t length = readlink(link, found, sizeof(found) - 1);
    found[length > 0 ? length : 0] = '\0';
    return length > 0 && !strcmp(found, target);
}

/* The value means something on this node alone: it has its name in a path, or one of its GPUs. */
static bool of_this_node(const struct mpsr_lease *lease, const char *value) {
    char directory[MPSR_LEASE_PATH];
    for (int index = 0; index < lease->gpus; index++)
        if (*lease->gpu[index].uuid && strstr(value, lease->gpu[index].uuid))
            return true;
    return mpsr_format(directory, sizeof(directory), "/%s/", lease->node) &&
           strstr(value, directory);
}

/* True: a variable was taken away, because its value means something on this node alone. */
static bool take_away_this_nodes(spank_t spank, const struct mpsr_lease *lease) {
    char value[MPSR_VISIBLE_BYTES];
    bool taken = false;
    for (const char *const *name = MPS_VARIABLES; *name; name++)
        if (spank_getenv(spank, *name, value, sizeof(value)) == ESPANK_SUCCESS &&
            of_this_node(lease, value)) {
            spank_unsetenv(spank, *name);
            taken = true;
        }
    return taken;
}

/* An mpiexec hands the environment of a batch script to all nodes. So what it has of ours says the
 * same on each of them, and leads to that node's own: names below the prolog's links, and GPUs by
 * their numbers at the server of that name. CUDA stops at the first number that a node has not. An
 * SM partition has a name of its own on each node, so no command is given one. On a host with
 * several slurmd the names may be another node's: then it is told exactly, and is good for this
 * node alone, as it is in a job of one node. */
static void same_on_each_node(spank_t spank, const struct mpsr_lease *lease,
                              const struct mpsr_visible *visible) {
    char id[24], link[MPSR_LEASE_PATH], held[MPSR_LEASE_PATH], list[MPSR_VISIBLE_BYTES];
    if (spank_getenv(spank, "SLURM_HET_SIZE", held, sizeof(held)) != ESPANK_SUCCESS &&
        spank_getenv(spank, "SLURM_JOB_NUM_NODES", held, sizeof(held)) == ESPANK_SUCCESS &&
        !strcmp(held, "1"))
        return;
    snprintf(id, sizeof(id), "%ld", lease->job);
    if (spank_getenv(spank, MPSR_ENV_LEASE, held, sizeof(held)) == ESPANK_SUCCESS &&
        mpsr_format(link, sizeof(link), MPSR_PATH_HERE_LEASE, lease->run, id) &&
        leads_to(link, held))
        spank_setenv(spank, MPSR_ENV_LEASE, link, 1);
    if (spank_getenv(spank, "CUDA_MPS_PIPE_DIRECTORY", held, sizeof(held)) != ESPANK_SUCCESS ||
        !mpsr_format(link, sizeof(link), MPSR_PATH_HERE_PIPE, lease->run, id) ||
        !leads_to(link, held))
        return;
    spank_setenv(spank, "CUDA_MPS_PIPE_DIRECTORY", link, 1);
    mpsr_visible_places(visible, list);
    spank_setenv(spank, "CUDA_VISIBLE_DEVICES", list, 1);
    if (!take_away_this_nodes(spank, lease))
        return;
    slurm_error(MPSR_TAG ": batch script: job with SM partitions on several nodes: its commands "
                         "cannot use the GPU (start them with srun or mpsr run)");
}

/* What Slurm has given to this task or, without `step`, to the whole job, as far as one process can
 * have it. Returns how many GPUs were given. */
static int visible_here(spank_t spank, const struct mpsr_lease *lease, bool step, int local,
                        struct mpsr_visible *visible) {
    char cuda[MPSR_VISIBLE_BYTES], number[MPSR_VISIBLE_BYTES];
    bool has =
        step && spank_getenv(spank, "CUDA_VISIBLE_DEVICES", cuda, sizeof(cuda)) == ESPANK_SUCCESS;
    bool numbered =
        step && spank_getenv(spank, "SLURM_STEP_GPUS", number, sizeof(number)) == ESPANK_SUCCESS;
    mpsr_visible_given(lease, has ? cuda : NULL, numbered ? number : NULL, visible);
    int given = visible->count;
    mpsr_visible_joined(lease, local, visible);
    return given;
}

/* Environment of what has no supervisor: it joins the server that is active now. */
static void environment_of_mps(spank_t spank, const struct mpsr_lease *lease,
                               const struct mpsr_options *options,
                               const struct mpsr_visible *visible) {
    char color[MPSR_VALUE_BYTES], pipe[MPSR_LEASE_PATH], partition[MPSR_LEASE_WORD];
    struct mpsr_gpu_environment gpu;
    if (!mpsr_lease_active(lease, visible->gpu[0], color) ||
        !mpsr_lease_pipe(lease, visible->gpu[0], color, pipe))
        refuse(MPSR_TAG ": lease: the active server of the task's GPU cannot be told", "");
    if (!mpsr_lease_partition(lease, visible->gpu[0], color, partition))
        refuse(MPSR_TAG ": lease: the SM partition on the task's GPU cannot be told", "");
    mpsr_gpu_environment(lease, options, visible, pipe, partition, &gpu);
    for (int index = 0; index < gpu.count; index++) {
        const struct mpsr_variable *variable = &gpu.variable[index];
        if (variable->value)
            spank_setenv(spank, variable->name, variable->value, 1);
        else
            spank_unsetenv(spank, variable->name);
    }
}

/* A task of --multi-prog: its command is out of reach, so it is under MPS without a supervisor,
 * unless the user has put ours before it in the file. Said once. */
static void leave_to_the_user(spank_t spank, const struct mpsr_lease *lease,
                              const struct mpsr_options *options) {
    uint32_t rank = 0;
    int local = 0;
    struct mpsr_visible visible;
    spank_get_item(spank, S_TASK_GLOBAL_ID, &rank);
    spank_get_item(spank, S_TASK_ID, &local);
    visible_here(spank, lease, true, local, &visible);
    environment_of_mps(spank, lease, options, &visible);
    spank_unsetenv(spank, MPSR_ENV_ARGV0);
    if (rank == 0)
        slurm_error(MPSR_TAG ": --multi-prog: under MPS, but without recovery (put %s before each "
                             "program in the file)",
                    mpsr_plugin.site.launcher);
}

static void supervise(spank_t spank, const struct mpsr_lease *lease,
                      const struct mpsr_options *options) {
    int count = 0;
    char **arguments = NULL, path[8192] = "";
    if (spank_get_item(spank, S_JOB_ARGV, &count, &arguments) != ESPANK_SUCCESS || count < 1)
        refuse(MPSR_TAG ": task: no command from Slurm", "");
    spank_getenv(spank, "PATH", path, sizeof(path));
    if (mpsr_several_programs(count, arguments, path)) {
        leave_to_the_user(spank, lease, options);
        return;
    }
    const char *name = strrchr(arguments[0], '/');
    if (!strcmp(name ? name + 1 : arguments[0], "mpsr-launch"))
        return; /* the user has put it there already */
    char line[2 * MPSR_WHY_BYTES], *launcher = mpsr_launcher_path(line);
    if (!launcher)
        refuse(line, "");
    spank_setenv(spank, MPSR_ENV_ARGV0, arguments[0], 1);
    arguments[0] = launcher; /* one pointer of the live array; lives as long as the process */
}

/* Slurm's own --container: command and environment are in a file for the OCI runtime before any
 * plugin is asked (seen on 22.05), so the program would run outside MPS. */
static void refuse_bundle(spank_t spank) {
    char bundle[MPSR_LEASE_PATH], line[2 * MPSR_WHY_BYTES];
    if (spank_getenv(spank, "SLURM_CONTAINER", bundle, sizeof(bundle)) == ESPANK_ENV_NOEXIST)
        return;
    snprintf(line, sizeof(line), MPSR_TAG ": --container: cannot be had with --mps: %.160s",
             bundle);
    mpsr_one_line(line);
    refuse(line, "start the container in the step (srun --mps apptainer exec ...), or use "
                 "pyxis (--container-image), or --mps=off");
}

int mpsr_remote_task(spank_t spank) {
    struct mpsr_options options;
    static struct mpsr_lease lease; /* a large record: off the stack of slurmstepd's child */
    char wire[MPSR_WIRE_MAX_BYTES + 1], path[MPSR_LEASE_PATH];
    uint32_t step = 0;
    mpsr_in_force(&mpsr_plugin.asked, &mpsr_plugin.site, &options);
    if (*mpsr_plugin.problem)
        refuse(mpsr_plugin.problem, "");
    if (!mpsr_options_on(&options, MPSR_OPTION_MPS)) {
        leave_unsupervised(spank);
        return ESPANK_SUCCESS;
    }
    refuse_bundle(spank);
    if (!load_lease(spank, path, &lease)) {
        leave_unsupervised(spank);
        return ESPANK_SUCCESS;
    }
    /* the prolog opened the job's domain and servers: a step cannot have others */
    mpsr_copy(options.value[MPSR_OPTION_DOMAIN], MPSR_VALUE_BYTES,
              lease.options.value[MPSR_OPTION_DOMAIN]);
    mpsr_copy(options.value[MPSR_OPTION_SERVERS], MPSR_VALUE_BYTES,
              lease.options.value[MPSR_OPTION_SERVERS]);
    if (!mpsr_options_on(&lease.options, MPSR_OPTION_STANDBY))
        mpsr_copy(options.value[MPSR_OPTION_STANDBY], MPSR_VALUE_BYTES, "off");
    mpsr_options_serialize(&options, wire);
    spank_setenv(spank, MPSR_ENV_OPTIONS, wire, 1);
    spank_setenv(spank, MPSR_ENV_LEASE, path, 1);
    spank_setenv(spank, MPSR_ENV_LAUNCHER, mpsr_plugin.site.launcher, 1);
    if (mpsr_plugin.site.apptainer)
        mpsr_binds_add(spank);
    spank_get_item(spank, S_JOB_STEPID, &step);
    if (step == MPSR_STEP_BATCH || step == MPSR_STEP_INTERACTIVE) {
        struct mpsr_visible visible;
        int given = visible_here(spank, &lease, false, 0, &visible);
        environment_of_mps(spank, &lease, &options, &visible);
        same_on_each_node(spank, &lease, &visible);
        mpsr_batch_script(spank, step == MPSR_STEP_BATCH, given - visible.count);
    } else
        supervise(spank, &lease, &options);
    return ESPANK_SUCCESS;
}
