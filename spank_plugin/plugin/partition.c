/* slurmstepd: the rules of the job's partition, before Slurm hands over any option.
 *
 * The lease names the partition as slurmctld gave it to the prolog. Where there is none yet, the
 * step's environment does, which the user may change: whatever is had by that, the job's prolog and
 * the agent decide by the partition that they know. Without partitions in plugstack.conf nothing is
 * read.
 */
#include "plugin.h"
#include "shared/lease.h"
#include "shared/text.h"

#include <stdio.h>
#include <stdlib.h>

void mpsr_enter_partition(spank_t spank) {
    static struct mpsr_lease lease; /* a large record */
    char path[MPSR_LEASE_PATH], id[24], why[MPSR_WHY_BYTES], name[MPSR_LEASE_WORD] = "";
    const char *node = getenv("SLURMD_NODENAME"); /* slurmstepd's own; the step's comes later */
    uint32_t job = 0;
    if (!mpsr_plugin.site.partitions)
        return;
    if (node && spank_get_item(spank, S_JOB_ID, &job) == ESPANK_SUCCESS) {
        snprintf(id, sizeof(id), "%u", job);
        if (mpsr_format(path, sizeof(path), MPSR_PATH_LEASE, mpsr_plugin.site.run, node, id) &&
            mpsr_lease_load(path, &lease, why) == MPSR_LEASE_OK && lease.job == (long)job)
            mpsr_copy(name, sizeof(name), lease.partition);
    }
    if (!*name)
        spank_getenv(spank, "SLURM_JOB_PARTITION", name, sizeof(name));
    mpsr_site_enter(&mpsr_plugin.site, name);
}
