/* A lease as the supervisor reads it. */
#include "fuzz.h"
#include "shared/lease.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct mpsr_lease lease;
    char why[MPSR_WHY_BYTES], pipe[MPSR_LEASE_PATH], color[MPSR_VALUE_BYTES],
        partition[MPSR_LEASE_WORD];
    char *text = fuzz_text(data, size);
    if (mpsr_lease_parse(text, &lease, why))
        for (int gpu = 0; gpu < lease.gpus; gpu++) {
            mpsr_lease_pipe(&lease, gpu, "a", pipe);
            mpsr_lease_active(&lease, gpu, color);
            mpsr_lease_partition(&lease, gpu, "a", partition);
        }
    else
        assert(*why && strlen(why) < MPSR_WHY_BYTES && !strchr(why, '\n'));
    free(text);
    return 0;
}
