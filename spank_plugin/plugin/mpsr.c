/* The dispatcher: Slurm's callbacks, handed to the file of the context they run in. Nothing is
 * decided here.
 *
 * Relies on libslurm's spank.h only. No threads, no NVML. What runs in slurmd and in job_prolog
 * does nothing at all: slurmd is left alone, and the prolog script reads SPANK_MPSR by itself. A
 * failing init or user_init on a node would drain it (tried on 22.05), so every refusal happens at
 * submission or in task_init.
 */
#include "plugin.h"

SPANK_PLUGIN(mpsr, 1)

int slurm_spank_init(spank_t spank, int count, char **arguments) {
    switch (spank_context()) {
    case S_CTX_ALLOCATOR:
    case S_CTX_LOCAL:
        mpsr_site_read(&mpsr_plugin.site, count, arguments);
        return mpsr_local_init(spank);
    case S_CTX_REMOTE:
        mpsr_site_read(&mpsr_plugin.site, count, arguments);
        return mpsr_remote_init(spank);
    default:
        return ESPANK_SUCCESS;
    }
}

int slurm_spank_init_post_opt(spank_t spank, int count, char **arguments) {
    (void)count, (void)arguments;
    spank_context_t context = spank_context();
    if (context == S_CTX_REMOTE)
        mpsr_remote_options(spank);
    return context == S_CTX_ALLOCATOR || context == S_CTX_LOCAL ? mpsr_local_options(spank)
                                                                : ESPANK_SUCCESS;
}

int slurm_spank_task_init(spank_t spank, int count, char **arguments) {
    (void)count, (void)arguments;
    return mpsr_remote_task(spank);
}
