/* What CUDA and MPS have to find in a process's environment: one rule for tasks with a supervisor
 * and without.
 */
#ifndef MPSR_GPU_ENVIRONMENT_H
#define MPSR_GPU_ENVIRONMENT_H

#include "lease.h"
#include "options.h"
#include "visible.h"

struct mpsr_variable {
    const char *name;
    const char *value; /* NULL: it must not be set */
};

struct mpsr_gpu_environment {
    struct mpsr_variable variable[6];
    int count;
    char devices[MPSR_VISIBLE_BYTES];
    char limits[MPSR_VISIBLE_BYTES];
};

/* For a process that joins the server with this pipe directory ("": none) in this SM partition ("":
 * none). A variable that is not named stays as it is: without --mps-threads what gres/mps may have
 * set. `environment` points into itself and into the arguments. */
void mpsr_gpu_environment(const struct mpsr_lease *lease, const struct mpsr_options *options,
                          const struct mpsr_visible *visible, const char *pipe,
                          const char *partition, struct mpsr_gpu_environment *environment);

#endif
