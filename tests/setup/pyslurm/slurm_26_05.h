/* pyslurm 25.11 on Slurm 26.05, whose calls take a step in place of a job's number. */
#include <slurm/slurm.h>

static inline slurm_step_id_t whole_job(uint32_t number) {
    slurm_step_id_t job = SLURM_STEP_ID_INITIALIZER;
    job.job_id = number;
    return job;
}

#define slurm_load_job(answer, job, flags) slurm_load_job(answer, whole_job(job), flags)
#define slurm_kill_job(job, signal, flags) slurm_kill_job(whole_job(job), signal, flags)
#define slurm_suspend(job) slurm_suspend(whole_job(job))
#define slurm_resume(job) slurm_resume(whole_job(job))
#define slurm_requeue(job, flags) slurm_requeue(whole_job(job), flags)
#define slurm_notify_job(job, text) slurm_notify_job(whole_job(job), text)
#define slurm_free_ctl_conf slurm_free_conf
