/* sbatch, salloc and srun: options are taken, checked and handed on as one canonical string.
 *
 * SPANK_MPSR reaches Prolog and Epilog; it says what was asked for, and the node adds what holds in
 * the job's partition. A job that did not ask gets nothing: its environment is
 * what it would be without us.
 */
#include "plugin.h"

int mpsr_local_init(spank_t spank) {
    if (mpsr_plugin.site.broken)
        slurm_error(MPSR_TAG ": plugstack.conf: %s", mpsr_plugin.site.why);
    mpsr_offer_twins();
    return mpsr_register(spank);
}

int mpsr_local_options(spank_t spank) {
    struct mpsr_options options;
    char wire[MPSR_WIRE_MAX_BYTES + 1];
    mpsr_in_force(&mpsr_plugin.asked, &mpsr_plugin.site, &options);
    if (!mpsr_options_on(&options, MPSR_OPTION_MPS)) {
        mpsr_withdraw_twins();
        if (mpsr_plugin.asked.layer[MPSR_OPTION_MPS] == MPSR_LAYER_NONE ||
            !mpsr_site_partition_asks(&mpsr_plugin.site))
            return ESPANK_SUCCESS; /* else the node must know that the user said no */
    }
    mpsr_asked_serialize(&mpsr_plugin.asked, &options, wire);
    if (spank_job_control_setenv(spank, MPSR_ENV_JOB_CONTROL, wire, 1) != ESPANK_SUCCESS)
        slurm_error(MPSR_TAG ": options: not handed to the prolog by Slurm: %s", wire);
    return ESPANK_SUCCESS;
}
