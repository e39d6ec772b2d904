/* See mpiexec.h. Relies on the variables that each launcher documents, which no srun sets. */
#include "mpiexec.h"

#include "shared/text.h"

#include <limits.h>
#include <stddef.h>
#include <stdlib.h>

static bool number_of(const char *name, long *value) {
    const char *text = getenv(name);
    return text && mpsr_number(text, 0, INT_MAX, value);
}

bool mpiexec_of(struct mpiexec *found) {
    static const struct {
        const char *rank, *size, *local;
    } KINDS[] = {
        {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
        {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"}, /* MPICH's hydra, Intel MPI */
        {"MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"},
    };
    for (size_t index = 0; index < sizeof(KINDS) / sizeof(KINDS[0]); index++)
        if (number_of(KINDS[index].rank, &found->rank) &&
            number_of(KINDS[index].size, &found->size) &&
            number_of(KINDS[index].local, &found->local) && found->rank < found->size)
            return true;
    return false;
}
