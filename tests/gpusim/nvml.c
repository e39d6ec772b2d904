/* The simulated libnvidia-ml.so.1: what nvidia-ml-py (pynvml) and nvidia-smi ask of a GPU.
 *
 * Everything is read from $SIMGPU_DIR at the call: memory from the locked files (pool.c), processes
 * from procs/ (a locked file each), Xid events from the file `events`, watched with inotify. NVML
 * sees all GPUs, whatever CUDA_VISIBLE_DEVICES says. Without a simulated host nvmlInit answers 9,
 * Driver Not Loaded. A function that is not written is not exported: pynvml then raises
 * NVMLError_FunctionNotFound. Layouts follow nvml.h; test_toolkit.py compares the functions with
 * it, the layouts are checked by what pynvml reads.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

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

#define EVENT_XID 0x8ull
#define FIELD_RECOVERY_ACTION 230
#define VALUE_UNSIGNED_INT 1
#define NO_INSTANCE 0xFFFFFFFFu

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

struct nvml_process {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
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

struct nvml_event {
    struct sim_gpu *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

struct event_set {
    pthread_mutex_t lock;
    int file, watch;
    bool registered[SIM_MAX_GPUS];
    char line[128]; /* a line that is not complete yet */
    size_t length;
};

static struct sim_host host;
static _Atomic int initialised; /* counts nvmlInit */
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

/* Ends the calling function when the library is not initialised or `ok` does not hold. */
#define CHECK(ok)                                                                                  \
    do {                                                                                           \
        if (atomic_load(&initialised) == 0)                                                        \
            return NVML_ERROR_UNINITIALIZED;                                                       \
        if (!(ok))                                                                                 \
            return NVML_ERROR_INVALID_ARGUMENT;                                                    \
    } while (0)

static bool device_ok(const struct sim_gpu *gpu) {
    return gpu >= host.gpu && gpu < host.gpu + host.gpus;
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
    if (initialised > 0 || sim_host_load(&host))
        initialised++;
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
    if (initialised > 0) {
        initialised--;
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
    CHECK(version != NULL);
    return copy_text(version, size, host.driver);
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned size) {
    char text[64];
    CHECK(version != NULL);
    snprintf(text, sizeof text, "%d.%s", host.cuda / 1000, host.driver);
    return copy_text(version, size, text);
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    CHECK(version != NULL);
    *version = host.cuda;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

SIM_EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *name, unsigned size) {
    char path[64], line[256];
    CHECK(name != NULL && size > 0);
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
    CHECK(count != NULL);
    *count = (unsigned)host.gpus;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, struct sim_gpu **device) {
    CHECK(device != NULL && index < (unsigned)host.gpus);
    *device = &host.gpu[index];
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, struct sim_gpu **device) {
    CHECK(uuid != NULL && device != NULL);
    for (int i = 0; i < host.gpus; i++)
        if (strcmp(host.gpu[i].uuid, uuid) == 0) {
            *device = &host.gpu[i];
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

/* Takes 0000:06:00.0 and NVML's own longer 00000000:06:00.0. */
SIM_EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *text,
                                                         struct sim_gpu **device) {
    unsigned domain, bus, slot;
    CHECK(text != NULL && device != NULL && sscanf(text, "%x:%x:%x", &domain, &bus, &slot) == 3);
    for (int i = 0; i < host.gpus; i++)
        if (host.gpu[i].domain == domain && host.gpu[i].bus == bus && host.gpu[i].device == slot) {
            *device = &host.gpu[i];
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetIndex(const struct sim_gpu *device, unsigned *index) {
    CHECK(device_ok(device) && index != NULL);
    *index = (unsigned)(device - host.gpu);
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetName(const struct sim_gpu *device, char *name, unsigned size) {
    CHECK(device_ok(device) && name != NULL);
    return copy_text(name, size, device->name);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetUUID(const struct sim_gpu *device, char *uuid, unsigned size) {
    CHECK(device_ok(device) && uuid != NULL);
    return copy_text(uuid, size, device->uuid);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(const struct sim_gpu *device, unsigned *minor) {
    CHECK(device_ok(device) && minor != NULL);
    *minor = (unsigned)device->minor;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(const struct sim_gpu *device,
                                                struct nvml_pci *pci) {
    CHECK(device_ok(device) && pci != NULL);
    *pci =
        (struct nvml_pci){.domain = device->domain, .bus = device->bus, .device = device->device};
    pci->device_id = 0x233510de; /* H200 */
    snprintf(pci->bus_id_legacy, sizeof pci->bus_id_legacy, "%.15s", device->bus_id);
    snprintf(pci->bus_id, sizeof pci->bus_id, "%08X:%s", device->domain,
             strchr(device->bus_id, ':') + 1);
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(const struct sim_gpu *device, int *mode) {
    CHECK(device_ok(device) && mode != NULL);
    *mode = device->compute_mode;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(const struct sim_gpu *device, int *major,
                                                           int *minor) {
    CHECK(device_ok(device) && major != NULL && minor != NULL);
    *major = 9;
    *minor = 0;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(const struct sim_gpu *device,
                                                struct nvml_memory *memory) {
    CHECK(device_ok(device) && memory != NULL);
    const uint64_t used = pool_used(&host, device->minor, 0);
    *memory =
        (struct nvml_memory){.total = device->memory, .free = device->memory - used, .used = used};
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(const struct sim_gpu *device,
                                                   struct nvml_memory_v2 *memory) {
    struct nvml_memory plain;
    CHECK(memory != NULL && memory->version == (2u << 24 | sizeof *memory));
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
    CHECK(device_ok(device) && fields != NULL && n > 0);
    for (int i = 0; i < n; i++) {
        fields[i].timestamp = (long long)(sim_now_ns() / 1000);
        fields[i].latency_us = 0;
        fields[i].result = NVML_ERROR_NOT_SUPPORTED;
        if (fields[i].id != FIELD_RECOVERY_ACTION || !sim_host_load(&now)) /* it may have changed */
            continue;
        fields[i].type = VALUE_UNSIGNED_INT;
        fields[i].value.ull = 0;
        fields[i].value.ui = (unsigned)sim_number(&now, "recovery_action",
                                                  now.gpu[device - host.gpu].recovery_action);
        fields[i].result = NVML_SUCCESS;
    }
    return NVML_SUCCESS;
}

/* ---- processes ---- */

/* Processes with a context on the GPU, MPS clients or the others; `n` in: room, out: how many. */
static nvmlReturn_t processes(const struct sim_gpu *device, bool mps, unsigned *n,
                              struct nvml_process *list) {
    char path[240];
    unsigned found = 0;
    snprintf(path, sizeof path, "%s/procs", host.dir);
    DIR *entries = opendir(path);
    if (entries == NULL)
        return NVML_ERROR_UNKNOWN;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        int minor;
        unsigned pid;
        char text[64] = "";
        if (sscanf(entry->d_name, "%d.%u", &minor, &pid) != 2 || minor != device->minor)
            continue;
        const int fd = openat(dirfd(entries), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            unlinkat(dirfd(entries), entry->d_name, 0); /* its process has gone */
        } else if (read(fd, text, sizeof text - 1) > 0 && (strncmp(text, "mps=1", 5) == 0) == mps) {
            if (list != NULL && found < *n)
                list[found] = (struct nvml_process){.pid = pid,
                                                    .used = pool_used(&host, minor, (pid_t)pid),
                                                    .gpu_instance = NO_INSTANCE,
                                                    .compute_instance = NO_INSTANCE};
            found++;
        }
        close(fd);
    }
    closedir(entries);
    const bool room = found <= *n && (list != NULL || found == 0);
    *n = found;
    return room ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(const struct sim_gpu *device,
                                                                unsigned *n,
                                                                struct nvml_process *list) {
    CHECK(device_ok(device) && n != NULL);
    return processes(device, false, n, list);
}

SIM_EXPORT nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(const struct sim_gpu *device,
                                                                   unsigned *n,
                                                                   struct nvml_process *list) {
    CHECK(device_ok(device) && n != NULL);
    return processes(device, true, n, list);
}

/* ---- events ---- */

SIM_EXPORT nvmlReturn_t nvmlDeviceGetSupportedEventTypes(const struct sim_gpu *device,
                                                         unsigned long long *types) {
    CHECK(device_ok(device) && types != NULL);
    *types = EVENT_XID;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlEventSetCreate(struct event_set **out) {
    char path[240];
    CHECK(out != NULL);
    struct event_set *set = calloc(1, sizeof *set);
    if (set == NULL)
        return NVML_ERROR_MEMORY;
    pthread_mutex_init(&set->lock, NULL);
    snprintf(path, sizeof path, "%s/events", host.dir);
    set->file = open(path, O_RDONLY | O_CLOEXEC);
    set->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (set->file < 0 || set->watch < 0 || inotify_add_watch(set->watch, path, IN_MODIFY) < 0) {
        sim_say("simgpu: %s: cannot be watched: %s", path, strerror(errno));
        if (set->file >= 0)
            close(set->file);
        if (set->watch >= 0)
            close(set->watch);
        free(set);
        return NVML_ERROR_UNKNOWN;
    }
    lseek(set->file, 0, SEEK_END); /* what happened before is not told */
    *out = set;
    return NVML_SUCCESS;
}

SIM_EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(const struct sim_gpu *device,
                                                 unsigned long long types, struct event_set *set) {
    CHECK(device_ok(device) && set != NULL);
    if ((types & ~EVENT_XID) != 0)
        return NVML_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&set->lock);
    set->registered[device - host.gpu] = (types & EVENT_XID) != 0;
    pthread_mutex_unlock(&set->lock);
    return NVML_SUCCESS;
}

/* The next complete line of a registered GPU, if there is one now: `<ns> <minor> <xid> <pid>`. */
static bool next_event(struct event_set *set, struct nvml_event *event) {
    for (;;) {
        char byte;
        if (read(set->file, &byte, 1) != 1)
            return false;
        if (byte != '\n') {
            if (set->length < sizeof set->line - 1)
                set->line[set->length++] = byte;
            continue;
        }
        int minor;
        unsigned long long when, xid;
        set->line[set->length] = '\0';
        set->length = 0;
        if (sscanf(set->line, "%llu %d %llu", &when, &minor, &xid) != 3) {
            sim_say("simgpu: %s/events: line is not understood: %s", host.dir, set->line);
            continue;
        }
        for (int i = 0; i < host.gpus; i++)
            if (host.gpu[i].minor == minor && set->registered[i]) {
                *event =
                    (struct nvml_event){.device = &host.gpu[i], .type = EVENT_XID, .data = xid};
                event->gpu_instance = event->compute_instance = NO_INSTANCE;
                return true;
            }
    }
}

SIM_EXPORT nvmlReturn_t nvmlEventSetWait_v2(struct event_set *set, struct nvml_event *event,
                                            unsigned timeout_ms) {
    char changes[4096];
    CHECK(set != NULL && event != NULL);
    const uint64_t end = sim_now_ns() + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        pthread_mutex_lock(&set->lock);
        const bool found = next_event(set, event);
        pthread_mutex_unlock(&set->lock);
        if (found)
            return NVML_SUCCESS;
        const uint64_t now = sim_now_ns();
        if (now >= end)
            return NVML_ERROR_TIMEOUT;
        struct pollfd changed = {.fd = set->watch, .events = POLLIN};
        const uint64_t left_ms = (end - now + 999999u) / 1000000u;
        if (poll(&changed, 1, left_ms > 0x7fffffffu ? 0x7fffffff : (int)left_ms) > 0)
            while (read(set->watch, changes, sizeof changes) > 0)
                ;
    }
}

SIM_EXPORT nvmlReturn_t nvmlEventSetFree(struct event_set *set) {
    CHECK(set != NULL);
    close(set->file);
    close(set->watch);
    pthread_mutex_destroy(&set->lock);
    free(set);
    return NVML_SUCCESS;
}
