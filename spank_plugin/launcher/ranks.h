/* Does the task's program take part in MPI? A rank that comes back alone meets nobody: the others
 * are past MPI_Init, and Slurm's process manager speaks to no second process. So such a task is not
 * started again, and has no standby.
 *
 * Told by what its processes do: they have mapped an MPI or PMI library, run an MPI launcher's
 * daemon, or have spoken on the socket of PMI-2. That Slurm has wired the step (MpiDefault, --mpi)
 * says nothing of the program; it only makes a task count as MPI until it was looked at with the
 * GPU's driver mapped, which it has loaded by the time that a fault can hit it. What loads MPI late
 * is seen at its next look.
 */
#ifndef MPSR_RANKS_H
#define MPSR_RANKS_H

#include <stdbool.h>
#include <sys/types.h>

struct ranks {
    bool fixed;        /* --mps-ranks says it: nothing is looked at */
    bool wired;        /* by Slurm, for PMI */
    bool settled;      /* looked at while on the GPU */
    bool mpi;          /* seen */
    bool told;         /* what the agent was told */
    int wire;          /* epoll descriptor that tells of PMI-2; -1: none */
    long long began;   /* when the program was started first; 0: not yet */
    long long look_at; /* 0: no more */
};

/* Before the program starts; `wish` is the value of --mps-ranks. */
void ranks_prepare(struct ranks *ranks, const char *wish);
void ranks_begin(struct ranks *ranks, long long now);
/* Is the task to be treated as a rank of MPI, by what is known? */
bool ranks_together(const struct ranks *ranks);
/* Has the program spoken to its process manager? */
void ranks_listen(struct ranks *ranks);
/* What has the task mapped? `root` is its process. */
void ranks_look(struct ranks *ranks, pid_t root, long long now);

#endif
