/* What the files of the simulated libnvidia-ml.so.1 share: its error numbers, the host that
 * nvmlInit has read, and the check that every function begins with. */
#ifndef SIM_NVML_H
#define SIM_NVML_H

#include "sim.h"

typedef int nvmlReturn_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_MEMORY = 20,
    NVML_ERROR_UNKNOWN = 999,
};

#define NVML_NO_INSTANCE 0xFFFFFFFFu

extern struct sim_host nvml_host;
extern _Atomic int nvml_initialised; /* counts nvmlInit */

bool nvml_device_ok(const struct sim_gpu *gpu);

/* Ends the calling function when the library is not initialised or `ok` does not hold. */
#define NVML_CHECK(ok)                                                                             \
    do {                                                                                           \
        if (atomic_load(&nvml_initialised) == 0)                                                   \
            return NVML_ERROR_UNINITIALIZED;                                                       \
        if (!(ok))                                                                                 \
            return NVML_ERROR_INVALID_ARGUMENT;                                                    \
    } while (0)

#endif
