/* The supervisor's own signals. Slurm signals every process of a step, so nothing is forwarded: the
 * supervisor blocks all it can, reads them from a descriptor, and gives each program the mask and
 * dispositions that Slurm had given to it.
 */
#ifndef MPSR_SIGNALS_H
#define MPSR_SIGNALS_H

/* Block; the descriptor to poll, or -1. */
int signals_take(void);

/* In a new child: everything as it was. */
void signals_give_back(void);

/* In a helper of ours: what Slurm sends to the step is not for it. */
void signals_keep_out(void);

/* The next signal that has arrived, 0 when there is none. */
int signals_next(int fd);

/* End as a process does that this wait status describes; never writes a core of its own. Does not
 * return. */
_Noreturn void signals_exit_as(int status);

#endif
