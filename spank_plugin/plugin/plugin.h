/* What the files of the plugin share: one process, one record. Each Slurm context has a file of its
 * own. */
#ifndef MPSR_PLUGIN_H
#define MPSR_PLUGIN_H

#include "requested_options.h"

#include <slurm/spank.h>
#include <stdint.h>

struct mpsr_plugin {
    struct mpsr_site site;
    struct mpsr_asked asked;
    char problem[2 * MPSR_WHY_BYTES]; /* remote: why the step cannot run, told in task_init */
};

extern struct mpsr_plugin mpsr_plugin;

/* register.c: the options of the contract, with one callback each; twins put into Slurm's stream of
 * options */
int mpsr_register(spank_t spank);
void mpsr_offer_twins(void);
void mpsr_withdraw_twins(void);
bool mpsr_option_variable(int index, char *name, size_t size);

/* local.c: sbatch, salloc, srun */
int mpsr_local_init(spank_t spank);
int mpsr_local_options(spank_t spank);

/* remote.c: slurmstepd and the task's process */
int mpsr_remote_init(spank_t spank);
void mpsr_remote_options(spank_t spank);
int mpsr_remote_task(spank_t spank);

/* launcher.c: hold in slurmstepd; the path for argv[0] in the task, or NULL and the whole line why
 * not */
void mpsr_launcher_hold(void);
char *mpsr_launcher_path(char line[2 * MPSR_WHY_BYTES]);

/* binds.c: our directories in the containers that Apptainer and Singularity start */
void mpsr_binds_add(spank_t spank);
void mpsr_binds_remove(spank_t spank);

/* batch_options.c: what a batch job that sbatch has not read asks for */
void mpsr_batch_options(spank_t spank);

/* batch.c: a batch script (`script`) or salloc's shell, with the environment of MPS; GPUs of the
 * job that it does not see */
void mpsr_batch_script(spank_t spank, bool script, int unseen);

/* partition.c: the rules of the job's partition, before Slurm hands over any option */
void mpsr_enter_partition(spank_t spank);

/* multi_prog.c */
bool mpsr_several_programs(int count, char *const *arguments, const char *path);

/* late.c: slurmstepd as root, when the prolog did not run */
void mpsr_remote_late(spank_t spank);

/* held.c: what slurmctld gave a job, in its own words: gres on one node, gpu:2(IDX:0-1), and the
 * partition. False: no gres, or not to be had */
struct mpsr_held {
    char gres[MPSR_WIRE_MAX_BYTES];
    char partition[MPSR_SITE_NAME];
};
bool mpsr_held(uint32_t job, const char *node, struct mpsr_held *held);

#endif
