/* What mpiexec or mpirun says of a rank that it has started itself: below a batch script, or below
 * a daemon of its own that srun has started on each node. Slurm's numbers are then the script's or
 * the daemon's, the same for all ranks of the node. */
#ifndef MPSR_MPIEXEC_H
#define MPSR_MPIEXEC_H

#include <stdbool.h>

struct mpiexec {
    long rank, size; /* of all ranks that it has started */
    long local;      /* among those of this node, from 0 */
};

/* False: this process is no such rank. */
bool mpiexec_of(struct mpiexec *found);

#endif
