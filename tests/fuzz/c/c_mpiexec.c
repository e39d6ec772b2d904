/* What an mpiexec that a user may have made up says of a rank: one variable a line. */
#include "fuzz.h"
#include "launcher/mpiexec.h"

#include <limits.h>

static const char *const NAMES[] = {
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "PMI_RANK",
    "PMI_SIZE",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_LOCAL_RANK",
};
enum { COUNT = sizeof(NAMES) / sizeof(NAMES[0]) };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = fuzz_text(data, size), *rest = text;
    for (size_t index = 0; index < COUNT; index++) {
        const char *line = strsep(&rest, "\n");
        if (line)
            setenv(NAMES[index], line, 1);
        else
            unsetenv(NAMES[index]);
    }
    struct mpiexec found = {-1, -1, -1};
    if (mpiexec_of(&found)) {
        assert(found.rank >= 0 && found.rank < found.size && found.size <= INT_MAX);
        assert(found.local >= 0 && found.local <= INT_MAX);
    }
    free(text);
    return 0;
}
