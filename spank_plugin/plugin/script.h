/* What a batch script says of itself: the options in its #SBATCH lines, and whether it starts its
 * programs with srun, mpsr or mpsr-launch. resilience/parse/job_script.py is the twin in Python;
 * tests/data/scripts.json holds both to the same cases. Pure: text in, values out. */
#ifndef MPSR_SCRIPT_H
#define MPSR_SCRIPT_H

#include <stdbool.h>

/* Each option of ours, in order, as sbatch reads them: up to the first line that is a command, and
 * of the job's first component. `value` is NULL for a bare flag. Ends when `take` says no. `text`
 * is taken apart in place. */
void mpsr_script_options(char *text, bool (*take)(void *with, int index, const char *value),
                         void *with);

/* The script's own words decide, since what it will start is not known before it does: srun, mpsr
 * or mpsr-launch in a line that is no comment. `text` is taken apart in place. */
bool mpsr_script_supervised(char *text);

/* A line that is no comment starts ranks by MPI's own launcher, and without mpsr or mpsr-launch. */
bool mpsr_script_mpiexec(const char *text);

#endif
