/* Handles to physical memory: cuMemCreate and what passes memory between processes.
 *
 * An exported descriptor is a duplicate of the memory's locked file, so the memory lives while any
 * process has it. Under MPS a client's own allocations are held against
 * CUDA_MPS_PINNED_DEVICE_MEM_LIMIT and the server's limit, imports are not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"

static struct physical *physicals;
static CUmemGenericAllocationHandle next_id = 1;
static uint64_t charged[SIM_MAX_GPUS]; /* bytes that this client created, by ordinal */

static int ordinal_of_minor(int minor) {
    for (int d = 0; d < sim.devices; d++)
        if (sim_gpu_of(d)->minor == minor)
            return d;
    return -1;
}

/* Bytes that CUDA_MPS_PINNED_DEVICE_MEM_LIMIT (`0=1G,1=512M`) leaves this MPS client on a device.
 */
static uint64_t own_limit(CUdevice device) {
    const char *list = getenv("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT");
    if (list == NULL)
        return UINT64_MAX;
    while (*list != '\0') {
        char *end;
        const long ordinal = strtol(list, &end, 10);
        if (end == list || *end != '=')
            break;
        const char *amount = end + 1;
        const unsigned long long n = strtoull(amount, &end, 10);
        const int shift = *end == 'G' ? 30 : *end == 'M' ? 20 : *end == 'K' ? 10 : 0;
        if (end == amount || shift == 0)
            break; /* like the driver: a limit without a unit is none */
        if (ordinal == device)
            return n << shift;
        end += strcspn(end, ",");
        list = *end == ',' ? end + 1 : end;
    }
    return UINT64_MAX;
}

static uint64_t pinned_limit(CUdevice device) {
    const uint64_t own = own_limit(device), server = mps_limit(sim.device[device]);
    return !sim.mps ? UINT64_MAX : own < server ? own : server;
}

CUresult physical_new(CUdevice device, uint64_t size, int exportable, struct physical **out) {
    if (charged[device] + size > pinned_limit(device))
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct physical *p = calloc(1, sizeof *p);
    if (p == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const int error = pool_create(&sim.host, sim_gpu_of(device), size, &p->fd);
    if (error != 0) {
        free(p);
        return error == ENOMEM ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_OPERATING_SYSTEM;
    }
    p->size = size;
    p->minor = sim_gpu_of(device)->minor;
    p->device = device;
    p->exportable = exportable;
    p->refs = 1;
    p->limited = true;
    p->id = next_id++;
    p->next = physicals;
    physicals = p;
    charged[device] += size;
    *out = p;
    return CUDA_SUCCESS;
}

struct physical *physical_of(CUmemGenericAllocationHandle id) {
    for (struct physical *p = physicals; p != NULL; p = p->next)
        if (p->id == id && p->refs > 0)
            return p;
    return NULL;
}

void physical_maybe_free(struct physical *p) {
    if (p->refs > 0 || p->maps > 0)
        return;
    for (struct physical **at = &physicals; *at != NULL; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    if (p->limited)
        charged[p->device] -= p->size;
    close(p->fd);
    pool_used(&sim.host, p->minor); /* takes the file away if we were the last */
    free(p);
}

/* ---- the interface ---- */

static CUresult check_property(const CUmemAllocationProp *p) {
    if (p == NULL || p->type != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
        (p->requestedHandleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    return sim_device_ok(p->location.id) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

SIM_EXPORT CUresult cuMemGetAllocationGranularity(size_t *granularity,
                                                  const CUmemAllocationProp *prop, int option) {
    ENTER(NEED_HEALTH);
    const CUresult result = check_property(prop);
    if (result != CUDA_SUCCESS || granularity == NULL || option < 0 || option > 1)
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_VALUE;
    *granularity = SIM_GRANULARITY;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size,
                                const CUmemAllocationProp *prop, unsigned long long flags) {
    ENTER(NEED_HEALTH);
    struct physical *p;
    CUresult result = check_property(prop);
    if (result != CUDA_SUCCESS)
        return result;
    if (handle == NULL || flags != 0 || size == 0 || size % SIM_GRANULARITY != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim.memory_lock);
    result = physical_new(prop->location.id, size, prop->requestedHandleTypes, &p);
    if (result == CUDA_SUCCESS)
        *handle = p->id;
    UNLOCK_AND_RETURN(result);
}

SIM_EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
    ENTER(NEED_HEALTH);
    pthread_mutex_lock(&sim.memory_lock);
    struct physical *p = physical_of(handle);
    if (p == NULL)
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    p->refs--;
    physical_maybe_free(p);
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

SIM_EXPORT CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle,
                                                void *address) {
    ENTER(NEED_HEALTH);
    pthread_mutex_lock(&sim.memory_lock);
    struct mapping *m = mapping_at((CUdeviceptr)(uintptr_t)address);
    const struct reservation *r = reservation_at((CUdeviceptr)(uintptr_t)address);
    if (handle == NULL || m == NULL || (r != NULL && r->context != NULL)) /* not for cuMemAlloc's */
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    m->memory->refs++;
    *handle = m->memory->id;
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

SIM_EXPORT CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
                                                           CUmemGenericAllocationHandle handle) {
    ENTER(NEED_HEALTH);
    pthread_mutex_lock(&sim.memory_lock);
    const struct physical *p = physical_of(handle);
    if (p == NULL || prop == NULL)
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    *prop = (CUmemAllocationProp){
        .type = CU_MEM_ALLOCATION_TYPE_PINNED,
        .requestedHandleTypes = p->exportable,
        .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = p->device},
    };
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

SIM_EXPORT CUresult cuMemExportToShareableHandle(void *shareable,
                                                 CUmemGenericAllocationHandle handle, int type,
                                                 unsigned long long flags) {
    ENTER(NEED_HEALTH);
    if (shareable == NULL || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&sim.memory_lock);
    const struct physical *p = physical_of(handle);
    if (p == NULL || p->exportable != type)
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    const int fd = fcntl(p->fd, F_DUPFD_CLOEXEC, 3); /* same open file: same lock */
    if (fd < 0)
        UNLOCK_AND_RETURN(CUDA_ERROR_OPERATING_SYSTEM);
    *(int *)shareable = fd;
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

SIM_EXPORT CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle,
                                                   void *shareable, int type) {
    ENTER(NEED_HEALTH);
    uint64_t size;
    int minor;
    if (handle == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_NOT_SUPPORTED;
    const int given = (int)(intptr_t)shareable;
    if (pool_describe(given, &size, &minor) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim.memory_lock);
    const int device = ordinal_of_minor(minor);
    struct physical *p = device < 0 ? NULL : calloc(1, sizeof *p);
    const int fd =
        p == NULL ? -1
                  : fcntl(given, F_DUPFD_CLOEXEC, 3); /* the caller keeps, and closes, its own */
    if (fd < 0) {
        free(p);
        UNLOCK_AND_RETURN(device < 0 ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_OPERATING_SYSTEM);
    }
    *p = (struct physical){
        .fd = fd, .size = size, .minor = minor, .device = device, .refs = 1, .next = physicals};
    p->exportable = type;
    p->id = next_id++;
    physicals = p;
    *handle = p->id;
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

/* In a forked child, where only this thread is left and locks may be held for ever: drop every
 * descriptor. */
void sim_memory_after_fork(void) {
    for (const struct physical *p = physicals; p != NULL; p = p->next)
        close(p->fd);
}
