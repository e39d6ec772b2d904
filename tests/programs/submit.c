/* Submits a batch script as slurmrestd does: nobody reads its #SBATCH lines, and no SPANK plugin is
 * asked. submit SCRIPT OUTPUT NAME=VALUE... Prints the job's number. */
#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>
#include <stdio.h>
#include <unistd.h>

int main(int count, char **arguments) {
    static char text[65536], directory[4096];
    job_desc_msg_t job;
    submit_response_msg_t *answer = NULL;
    FILE *script = count > 3 ? fopen(arguments[1], "r") : NULL;
    if (!script || !fread(text, 1, sizeof(text) - 1, script))
        return 2;
    fclose(script);
    slurm_init(NULL);
    slurm_init_job_desc_msg(&job);
    job.name = "rest";
    job.script = text;
    job.std_out = arguments[2];
    job.work_dir = getcwd(directory, sizeof(directory));
    job.environment = arguments + 3;
    job.env_size = (uint32_t)(count - 3);
    job.user_id = getuid();
    job.group_id = getgid();
    job.min_nodes = 1;
    if (slurm_submit_batch_job(&job, &answer) != SLURM_SUCCESS) {
        slurm_perror("submit");
        return 1;
    }
    printf("%u\n", answer->job_id);
    return 0;
}
