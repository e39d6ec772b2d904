/* cuInit and what can be asked of a device.
 *
 * cuInit: no simulated host → 100, as on a machine without a GPU. A listening MPS control daemon
 * makes the process its client (mps_client.c) or fails cuInit with the daemon's error, and cuInit
 * may then be tried again. CUDA_VISIBLE_DEVICES counts among the GPUs of the MPS server, or without
 * MPS among those of the host. A forked child gets 3 from everything.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim.h"

struct sim_process sim = {.memory_lock = PTHREAD_MUTEX_INITIALIZER,
                          .queue_lock = PTHREAD_MUTEX_INITIALIZER};

static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;

static void after_fork(void) {
    const bool was_ready = atomic_load(&sim.state) == SIM_READY;
    atomic_store(&sim.state, SIM_FORKED);
    if (was_ready) {
        sim_memory_after_fork();
        sim_contexts_after_fork();
        mps_after_fork();
    }
}

static CUresult set_up(void) {
    int all[SIM_MAX_GPUS], minors[SIM_MAX_GPUS], n = 0, n_minors = 0;
    if (!sim_host_load(&sim.host))
        return CUDA_ERROR_NO_DEVICE;
    sim_sleep_ms(sim_number(&sim.host, "cuinit_ms", sim.host.cuinit_ms));
    CUresult result = mps_attach(&sim.mps, minors, &n_minors);
    if (result != CUDA_SUCCESS)
        return result;
    for (int i = 0; i < sim.host.gpus && !sim.mps; i++)
        all[n++] = i;
    for (int i = 0; i < n_minors; i++)
        for (int g = 0; g < sim.host.gpus; g++)
            if (sim.host.gpu[g].minor == minors[i] && n < SIM_MAX_GPUS)
                all[n++] = g;
    sim.devices = sim_visible(&sim.host, getenv("CUDA_VISIBLE_DEVICES"), all, n, sim.device);
    if (sim.devices == 0)
        return CUDA_ERROR_NO_DEVICE;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    if (pthread_cond_init(&sim.progress, &monotonic) != 0 || !sim_window_open() ||
        !sim_fault_setup() || pthread_atfork(NULL, NULL, after_fork) != 0)
        return CUDA_ERROR_OPERATING_SYSTEM;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuInit(unsigned flags) {
    ENTER(NEED_NOTHING);
    if (atomic_load(&sim.state) == SIM_FORKED)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&init_lock);
    if (atomic_load(&sim.state) == SIM_COLD) {
        result = set_up();
        if (result == CUDA_SUCCESS)
            atomic_store(&sim.state, SIM_READY);
    }
    pthread_mutex_unlock(&init_lock);
    return result;
}

SIM_EXPORT CUresult cuDriverGetVersion(int *version) {
    struct sim_host host;
    ENTER(NEED_NOTHING);
    if (version == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (atomic_load(&sim.state) == SIM_COLD) { /* works before cuInit, also without a GPU */
        sim_host_load(&host);
        *version = host.cuda;
    } else {
        *version = sim.host.cuda;
    }
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuDeviceGetCount(int *count) {
    ENTER(NEED_INIT);
    if (count == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *count = sim.devices;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER(NEED_INIT);
    if (!sim_device_ok(ordinal))
        return CUDA_ERROR_INVALID_DEVICE;
    if (device == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

/* Checks shared by the queries below. */
static CUresult ask(CUdevice device, const void *out) {
    return out == NULL             ? CUDA_ERROR_INVALID_VALUE
           : sim_device_ok(device) ? CUDA_SUCCESS
                                   : CUDA_ERROR_INVALID_DEVICE;
}

SIM_EXPORT CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
    ENTER(NEED_INIT);
    const CUresult result = size <= 0 ? CUDA_ERROR_INVALID_VALUE : ask(device, name);
    if (result == CUDA_SUCCESS)
        snprintf(name, (size_t)size, "%s", sim_gpu_of(device)->name);
    return result;
}

SIM_EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    ENTER(NEED_INIT);
    const CUresult result = ask(device, uuid);
    if (result == CUDA_SUCCESS)
        memcpy(uuid->bytes, sim_gpu_of(device)->uuid_bytes, sizeof uuid->bytes);
    return result;
}

SIM_EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    return cuDeviceGetUuid(uuid, device);
}

SIM_EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    ENTER(NEED_INIT);
    const CUresult result = ask(device, bytes);
    if (result == CUDA_SUCCESS)
        *bytes = sim_gpu_of(device)->memory;
    return result;
}

SIM_EXPORT CUresult cuDeviceGetPCIBusId(char *text, int size, CUdevice device) {
    ENTER(NEED_INIT);
    const CUresult result = size < 13 ? CUDA_ERROR_INVALID_VALUE : ask(device, text);
    if (result == CUDA_SUCCESS)
        snprintf(text, (size_t)size, "%s", sim_gpu_of(device)->bus_id);
    return result;
}

SIM_EXPORT CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *text) {
    ENTER(NEED_INIT);
    if (device == NULL || text == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    for (int d = 0; d < sim.devices; d++)
        if (strcasecmp(sim_gpu_of(d)->bus_id, text) == 0) {
            *device = d;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_DEVICE;
}

SIM_EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    ENTER(NEED_INIT);
    const CUresult result = minor == NULL ? CUDA_ERROR_INVALID_VALUE : ask(device, major);
    if (result == CUDA_SUCCESS) {
        *major = 9;
        *minor = 0;
    }
    return result;
}

/* Attributes that are the same for every simulated GPU: an H200's where that makes sense, 0 for
 * what is not simulated. */
static const struct {
    int attribute, value;
} constants[] = {
    {1, 1024},        /* MAX_THREADS_PER_BLOCK */
    {2, 1024},        /* MAX_BLOCK_DIM_X */
    {3, 1024},        /* MAX_BLOCK_DIM_Y */
    {4, 64},          /* MAX_BLOCK_DIM_Z */
    {5, 2147483647},  /* MAX_GRID_DIM_X */
    {6, 65535},       /* MAX_GRID_DIM_Y */
    {7, 65535},       /* MAX_GRID_DIM_Z */
    {8, 49152},       /* MAX_SHARED_MEMORY_PER_BLOCK */
    {9, 65536},       /* TOTAL_CONSTANT_MEMORY */
    {10, 32},         /* WARP_SIZE */
    {11, 2147483647}, /* MAX_PITCH */
    {12, 65536},      /* MAX_REGISTERS_PER_BLOCK */
    {13, 1980000},    /* CLOCK_RATE, kHz */
    {14, 512},        /* TEXTURE_ALIGNMENT */
    {15, 1},          /* GPU_OVERLAP */
    {16, 132},        /* MULTIPROCESSOR_COUNT */
    {17, 0},          /* KERNEL_EXEC_TIMEOUT */
    {18, 0},          /* INTEGRATED */
    {19, 1},          /* CAN_MAP_HOST_MEMORY */
    {31, 1},          /* CONCURRENT_KERNELS */
    {32, 1},          /* ECC_ENABLED */
    {36, 3201000},    /* MEMORY_CLOCK_RATE, kHz */
    {37, 6144},       /* GLOBAL_MEMORY_BUS_WIDTH, bits */
    {38, 62914560},   /* L2_CACHE_SIZE */
    {39, 2048},       /* MAX_THREADS_PER_MULTIPROCESSOR */
    {40, 3},          /* ASYNC_ENGINE_COUNT */
    {41, 1},          /* UNIFIED_ADDRESSING */
    {75, 9},          /* COMPUTE_CAPABILITY_MAJOR */
    {76, 0},          /* COMPUTE_CAPABILITY_MINOR */
    {78, 1},          /* STREAM_PRIORITIES_SUPPORTED */
    {83, 0},          /* MANAGED_MEMORY */
    {88, 0},          /* PAGEABLE_MEMORY_ACCESS */
    {89, 0},          /* CONCURRENT_MANAGED_ACCESS */
    {95, 0},          /* COOPERATIVE_LAUNCH */
    {99, 1},          /* HOST_REGISTER_SUPPORTED */
    {102, 1},         /* VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED */
    {103, 1},         /* HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED */
    {104, 0},         /* HANDLE_TYPE_WIN32_HANDLE_SUPPORTED */
    {105, 0},         /* HANDLE_TYPE_WIN32_KMT_HANDLE_SUPPORTED */
    {107, 0},         /* GENERIC_COMPRESSION_SUPPORTED */
    {110, 0},         /* GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED */
    {115, 0},         /* MEMORY_POOLS_SUPPORTED */
    {116, 0},         /* GPU_DIRECT_RDMA_SUPPORTED */
    {128, 0},         /* HANDLE_TYPE_FABRIC_SUPPORTED */
    {132, 0},         /* MULTICAST_SUPPORTED */
};

SIM_EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    ENTER(NEED_INIT);
    const CUresult result = ask(device, value);
    if (result != CUDA_SUCCESS)
        return result;
    const struct sim_gpu *gpu = sim_gpu_of(device);
    switch (attribute) {
    case 20: /* COMPUTE_MODE */
        *value = gpu->compute_mode;
        return CUDA_SUCCESS;
    case 33: /* PCI_BUS_ID */
        *value = (int)gpu->bus;
        return CUDA_SUCCESS;
    case 34: /* PCI_DEVICE_ID */
        *value = (int)gpu->device;
        return CUDA_SUCCESS;
    case 50: /* PCI_DOMAIN_ID */
        *value = (int)gpu->domain;
        return CUDA_SUCCESS;
    case 133: /* MPS_ENABLED */
        *value = sim.mps;
        return CUDA_SUCCESS;
    default:
        break;
    }
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++)
        if (constants[i].attribute == attribute) {
            *value = constants[i].value;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

SIM_EXPORT CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
    ENTER(NEED_INIT);
    const CUresult result = ask(device, can);
    if (result != CUDA_SUCCESS || !sim_device_ok(peer) || device == peer)
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_DEVICE;
    *can = 0;
    return CUDA_SUCCESS;
}

/* ---- names of errors ---- */

static const struct {
    CUresult code;
    const char *name, *text;
} errors[] = {
#define X(name, number, text) {number, "CUDA_" #name, text},
    GPUSIM_ERRORS(X)
#undef X
};

static CUresult error_words(CUresult code, const char **out, bool name) {
    if (out == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *out = NULL;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].code == code)
            *out = name ? errors[i].name : errors[i].text;
    return *out == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuGetErrorName(CUresult code, const char **name) {
    ENTER(NEED_NOTHING);
    return error_words(code, name, true);
}

SIM_EXPORT CUresult cuGetErrorString(CUresult code, const char **text) {
    ENTER(NEED_NOTHING);
    return error_words(code, text, false);
}
