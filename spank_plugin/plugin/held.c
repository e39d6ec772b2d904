/* What Slurm's controller says of a job's gres on one node and of its partition, through libslurm's
 * own call.
 *
 * No text of a user's is looked at: the job's record comes as a structure, of which the number, the
 * list of nodes, the partition and the gres are read, and all are of slurmctld's own making.
 * (`scontrol show job` prints the user's texts between its lines, newlines and all.) libslurm is in
 * every program that loads the plugin. A call may take as long as slurmctld lets it: the caller has
 * a deadline.
 */
#include "plugin.h"
#include "shared/text.h"

#include <slurm/slurm.h>
#include <slurm/slurm_version.h>
#include <string.h>

/* 26.05 names a job by a step id, in calls and in records. */
#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(26, 5, 0)
static int load(job_info_msg_t **answer, uint32_t job) {
    slurm_step_id_t id = SLURM_STEP_ID_INITIALIZER;
    id.job_id = job;
    return slurm_load_job(answer, id, SHOW_DETAIL);
}

static uint32_t number(const slurm_job_info_t *job) {
    return job->step_id.job_id;
}
#else
static int load(job_info_msg_t **answer, uint32_t job) {
    return slurm_load_job(answer, job, SHOW_DETAIL);
}

static uint32_t number(const slurm_job_info_t *job) {
    return job->job_id;
}
#endif

/* The element of `nodes` that is this node, -1 when it is none. */
static int position(const char *nodes, const char *node) {
    __auto_type hosts = slurm_hostlist_create(nodes); /* its type is another since 23.11 */
    if (!hosts)
        return -1;
    const int found = slurm_hostlist_find(hosts, node);
    slurm_hostlist_destroy(hosts);
    return found;
}

/* The record of exactly this job: for the leader of an array or of a heterogeneous job there are
 * those of the others, too. */
static const slurm_job_info_t *record(const job_info_msg_t *answer, uint32_t job) {
    for (uint32_t index = 0; index < answer->record_count; index++)
        if (number(&answer->job_array[index]) == job)
            return &answer->job_array[index];
    return NULL;
}

bool mpsr_held(uint32_t job, const char *node, struct mpsr_held *held) {
    job_info_msg_t *answer = NULL;
    if (load(&answer, job) != SLURM_SUCCESS || !answer)
        return false;
    bool done = false;
    const slurm_job_info_t *const found = record(answer, job);
    const int place = found && found->nodes ? position(found->nodes, node) : -1;
    if (place >= 0 && (uint32_t)place < found->gres_detail_cnt && found->gres_detail_str[place])
        done = mpsr_copy(held->gres, sizeof(held->gres), found->gres_detail_str[place]);
    if (!done)
        held->gres[0] = '\0';
    if (!found || !found->partition ||
        !mpsr_copy(held->partition, sizeof(held->partition), found->partition))
        held->partition[0] = '\0';
    slurm_free_job_info_msg(answer);
    return done;
}
