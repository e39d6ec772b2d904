/* The simulated libnvidia-ml.so.1: what nvidia-ml-py (pynvml) and nvidia-smi ask of a GPU. Here its
 * start and the devices; nvml_processes.c and nvml_events.c have the rest.
 *
 * Everything is read from $SIMGPU_DIR at the call: memory from the locked files (pool.c), processes
 * from procs/ (a locked file each), Xid events from the file `events`, watched with inotify. NVML
 * sees all GPUs, whatever CUDA_VISIBLE_DEVICES says. Without a simulated host nvmlInit answers 9,
 * Driver Not Loaded. A function that is not written is not exported: pynvml then raises
 * NVMLError_FunctionNotFound. Layouts follow nvml.h; test_toolkit.py compares the functions with
 * it, the layouts are checked by what pynvml reads.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim_nvml.h"

#define FIELD_RECOVERY_ACTION 230
#define VALUE_UNSIGNED_INT 1

struct nvml_pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml_memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

struct nvml_field {
    unsigned id, scope;
    long long timestamp, latency_us;
    unsigned type;
    nvmlReturn_t result;
    union {
        unsigned ui;
        unsigned long long ull;
    } value;
};

struct sim_host nvml_host;
_Atomic int nvml_initialised;
static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;

static const struct {
    nvmlReturn_t code;
    const char *text;
} texts[] = {
    {NVML_SUCCESS, "Success"},
    {NVML_ERROR_UNINITIALIZED, "Uninitialized"},
    {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"},
    {NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
    {4, "Insufficient Permissions"},
    {5, "Already Initialized"},
    {NVML_ERROR_NOT_FOUND, "Not Found"},
    {NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size"},
    {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
    {NVML_ERROR_TIMEOUT, "Timeout"},
    {12, "NVML Shared Library Not Found"},
    {13, "Function Not Found"},
    {15, "GPU is lost"},
    {NVML_ERROR_MEMORY, "Insufficient Memory"},
    {NVML_ERROR_UNKNOWN, "Unknown Error"},
};

bool nvml_device_ok(const struct sim_gpu *gpu) {
    return gpu >= nvml_host.gpu && gpu < nvml_host.gpu + nvml_host.gpus;
}

static nvmlReturn_t copy_text(char *to, unsigned size, const char *text) {
    if (strlen(text) >= size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(to, text, strlen(text) + 1);
    return NVML_SUCCESS;
}

/* ---- the library and the driver ---- */

SIM_EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    nvmlReturn_t result = NVML_SUCCESS;
    if (flags > 3)
        return NVML_ERROR_INVALID_ARGUMENT;
    pthread_mutex_lock(&init_lock);
    if (nvml_initialised > 0 || sim_host_load(&nvml_host))
        nvml_initialised++;
    else
        result = NVML_ERROR_DRIVER_NOT_LOADED;
    pthread_mutex_unlock(&init_lock);
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlInit_v2(void) {
    return nvmlInitWithFlags(0);
}

SIM_EXPORT nvmlReturn_t nvmlInit(void) {
    return nvmlInitWithFlags(0);
}

SIM_EXPORT nvmlReturn_t nvmlShutdown(void) {
    nvmlReturn_t result = NVML_ERROR_UNINITIALIZED;
    pthread_mutex_lock(&init_lock);
    if (nvml_initialised > 0) {
        nvml_initialised--;
        result = NVML_SUCCESS;
    }
    pthread_mutex_unlock(&init_lock);
    return result;
}

SIM_EXPORT const char *nvmlErrorString(nvmlReturn_t code) {
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].code == code)
            return texts[i].text;
    return "Unknown Error";
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned size) {
    NVML_CHECK(version != NULL);
    return copy_text(version, size, nvml_host.driver);
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned size) {
    char text[64];
    NVML_CHECK(version != NULL);
    snprintf(text, sizeof text, "%d.%s", nvml_host.cuda / 1000, nvml_host.driver);
    return copy_text(version, size, text);
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    NVML_CHECK(version != NULL);
    *version = nvml_host.cuda;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned size) {
    char path[64], line[256];
    NVML_CHECK(name != NULL && size > 0);
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return NVML_ERROR_NOT_FOUND;
    line[n] = '\0';
    snprintf(name, size, "%s", line);
    return NVML_SUCCESS;
}

/* ---- devices ---- */

SIM_EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    NVML_CHECK(count != NULL);
    *count = (unsigned)nvml_host.gpus;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, struct sim_gpu **device) {
    NVML_CHECK(device != NULL && index < (unsigned)nvml_host.gpus);
    *device = &nvml_host.gpu[index];
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, struct sim_gpu **device) {
    NVML_CHECK(uuid != NULL && device != NULL);
    for (int i = 0; i < nvml_host.gpus; i++)
        if (strcmp(nvml_host.gpu[i].uuid, uuid) == 0) {
            *device = &nvml_host.gpu[i];
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

/* Takes 0000:06:00.0 and NVML's own longer 00000000:06:00.0. */
SIM_EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *text,
                                                         struct sim_gpu **device) {
    unsigned domain, bus, slot;
    NVML_CHECK(text != NULL && device != NULL &&
               sscanf(text, "%x:%x:%x", &domain, &bus, &slot) == 3);
    for (int i = 0; i < nvml_host.gpus; i++)
        if (nvml_host.gpu[i].domain == domain && nvml_host.gpu[i].bus == bus &&
            nvml_host.gpu[i].device == slot) {
            *device = &nvml_host.gpu[i];
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetIndex(const struct sim_gpu *device, unsigned *index) {
    NVML_CHECK(nvml_device_ok(device) && index != NULL);
    *index = (unsigned)(device - nvml_host.gpu);
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetName(const struct sim_gpu *device, char *name, unsigned size) {
    NVML_CHECK(nvml_device_ok(device) && name != NULL);
    return copy_text(name, size, device->name);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetUUID(const struct sim_gpu *device, char *uuid, unsigned size) {
    NVML_CHECK(nvml_device_ok(device) && uuid != NULL);
    return copy_text(uuid, size, device->uuid);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(const struct sim_gpu *device, unsigned *minor) {
    NVML_CHECK(nvml_device_ok(device) && minor != NULL);
    *minor = (unsigned)device->minor;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(const struct sim_gpu *device,
                                                struct nvml_pci *pci) {
    NVML_CHECK(nvml_device_ok(device) && pci != NULL);
    *pci =
        (struct nvml_pci){.domain = device->domain, .bus = device->bus, .device = device->device};
    pci->device_id = 0x233510de; /* H200 */
    snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "%.15s", device->bus_id);
    snprintf(pci->bus_id, sizeof pci->bus_id, "%08X:%s", device->domain,
             strchr(device->bus_id, ':') + 1);
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(const struct sim_gpu *device, int *mode) {
    NVML_CHECK(nvml_device_ok(device) && mode != NULL);
    *mode = device->compute_mode;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(const struct sim_gpu *device, int *major,
                                                           int *minor) {
    NVML_CHECK(nvml_device_ok(device) && major != NULL && minor != NULL);
    *major = 9;
    *minor = 0;
    return (nvmlReturn_t)sim_number(&nvml_host, "capability_error", NVML_SUCCESS);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMigMode(const struct sim_gpu *device, unsigned *current,
                                             unsigned *pending) {
    NVML_CHECK(nvml_device_ok(device) && current != NULL && pending != NULL);
    *current = *pending = sim_number(&nvml_host, "mig", 0) != 0;
    return (nvmlReturn_t)sim_number(&nvml_host, "mig_error", NVML_SUCCESS);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(const struct sim_gpu *device,
                                                struct nvml_memory *memory) {
    NVML_CHECK(nvml_device_ok(device) && memory != NULL);
    const uint64_t used = pool_used(&nvml_host, device->minor);
    *memory =
        (struct nvml_memory){.total = device->memory, .free = device->memory - used, .used = used};
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(const struct sim_gpu *device,
                                                   struct nvml_memory_v2 *memory) {
    struct nvml_memory plain;
    NVML_CHECK(memory != NULL && memory->version == (2u << 24 | sizeof *memory));
    const nvmlReturn_t result = nvmlDeviceGetMemoryInfo(device, &plain);
    if (result == NVML_SUCCESS) {
        memory->total = plain.total;
        memory->reserved = 0;
        memory->free = plain.free;
        memory->used = plain.used;
    }
    return result;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(const struct sim_gpu *device, int n,
                                                 struct nvml_field *fields) {
    struct sim_host now;
    NVML_CHECK(nvml_device_ok(device) && fields != NULL && n > 0);
    for (int i = 0; i < n; i++) {
        fields[i].timestamp = (long long)(sim_now_ns() / 1000);
        fields[i].latency_us = 0;
        fields[i].result = NVML_ERROR_NOT_SUPPORTED;
        if (fields[i].id != FIELD_RECOVERY_ACTION || !sim_host_load(&now)) /* it may have changed */
            continue;
        fields[i].type = VALUE_UNSIGNED_INT;
        fields[i].value.ull = 0;
        fields[i].value.ui = (unsigned)sim_number(&now, "recovery_action",
                                                  now.gpu[device - nvml_host.gpu].recovery_action);
        fields[i].result = NVML_SUCCESS;
    }
    return NVML_SUCCESS;
}
