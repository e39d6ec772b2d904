/* See gpu_environment.h. */
#include "gpu_environment.h"

static void say(struct mpsr_gpu_environment *environment, const char *name, const char *value) {
    environment->variable[environment->count++] =
        (struct mpsr_variable){.name = name, .value = value};
}

static const char *or_none(const char *value) {
    return *value ? value : NULL;
}

void mpsr_gpu_environment(const struct mpsr_lease *lease, const struct mpsr_options *options,
                          const struct mpsr_visible *visible, const char *pipe,
                          const char *partition, struct mpsr_gpu_environment *environment) {
    const char *threads = options->value[MPSR_OPTION_THREADS];
    const char *memory = options->value[MPSR_OPTION_MEMORY];
    environment->count = 0;
    mpsr_visible_uuids(lease, visible, environment->devices);
    mpsr_visible_limits(visible, memory, environment->limits);
    say(environment, "CUDA_MPS_PIPE_DIRECTORY", or_none(pipe));
    say(environment, "CUDA_MPS_LOG_DIRECTORY", NULL); /* the daemon's affair */
    say(environment, "CUDA_VISIBLE_DEVICES", environment->devices);
    say(environment, "CUDA_MPS_SM_PARTITION", or_none(partition));
    if (*partition) /* its size is the share: in a partition a percentage means nothing */
        say(environment, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", NULL);
    else if (*threads)
        say(environment, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", threads);
    if (*memory)
        say(environment, "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", environment->limits);
}
