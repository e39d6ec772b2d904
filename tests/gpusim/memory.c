/* Device memory as a process sees it: handles, address reservations, mappings, cuMemAlloc,
 * page-locked host memory.
 *
 * Device addresses lie in a window that is never mapped at those numbers; the library's own view of
 * the same bytes is a shadow of the window at a constant distance. A program that dereferences a
 * device pointer on the CPU therefore dies, as with a GPU. The shadow is reserved without access; a
 * mapping puts the memory's file over it with the rights of cuMemSetAccess, so that the CPU itself
 * finds illegal accesses of kernels.
 *
 * Physical memory outlives handles and mappings until the last of them, here or in another process,
 * is gone (pool.c). Everything of a process is invisible to its forked children: mappings are not
 * inherited and descriptors are closed in the child.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim.h"

intptr_t sim_shadow;

#define SHADOW_WANTED 0x300000000000ull
#define GUARD_GAP                                                                                  \
    SIM_GRANULARITY /* between reservations of our choice: a stray access just behind one faults   \
                     */

/* One handle of this process: refs counts cuMemCreate, imports and retains; mappings hold the
 * descriptor too. */
struct physical {
    int fd;
    uint64_t size;
    int minor;
    int device; /* ordinal here, -1: not visible to us */
    int exportable;
    int refs, maps;
    bool limited; /* counts against CUDA_MPS_PINNED_DEVICE_MEM_LIMIT */
    CUmemGenericAllocationHandle id;
    struct physical *next;
};

struct mapping {
    CUdeviceptr address;
    uint64_t size;
    struct physical *memory;
    int access;
    struct mapping *next;
};

struct reservation {
    CUdeviceptr address;
    uint64_t size;
    CUcontext context; /* of cuMemAlloc; NULL: cuMemAddressReserve */
    uint64_t asked;    /* bytes that cuMemAlloc was asked for */
    struct reservation *next;
};

struct host_range {
    uintptr_t address;
    size_t size;
    bool ours; /* allocated here, not registered */
    struct host_range *next;
};

static struct physical *physicals; /* all lists under sim.memory_lock */
static struct mapping *mappings;
static struct reservation *reservations;
static struct host_range *host_ranges;
static CUmemGenericAllocationHandle next_id = 1;
static CUdeviceptr next_address = SIM_WINDOW + SIM_GRANULARITY;
static uint64_t charged[SIM_MAX_GPUS]; /* bytes of this client, by ordinal */

bool sim_window_open(void) {
    static bool open;
    if (open)
        return true;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const uint64_t size = SIM_WINDOW_SIZE + SIM_NOWHERE_SIZE;
    void *shadow = mmap((void *)SHADOW_WANTED, size, PROT_NONE, flags, -1, 0);
    if (shadow == MAP_FAILED) {
        sim_say("simgpu: address space: %llu GiB cannot be reserved: %s (ulimit -v?)",
                (unsigned long long)size >> 30, strerror(errno));
        return false;
    }
    madvise(shadow, size, MADV_DONTFORK);
    sim_shadow = (intptr_t)((uintptr_t)shadow - SIM_WINDOW);
    return open = true;
}

bool sim_is_device(CUdeviceptr address) {
    return address - SIM_WINDOW < SIM_WINDOW_SIZE;
}

bool sim_is_pinned_host(const void *pointer, size_t size) {
    bool found = false;
    pthread_mutex_lock(&sim.memory_lock);
    for (struct host_range *r = host_ranges; r != NULL; r = r->next)
        found = found || ((uintptr_t)pointer >= r->address &&
                          (uintptr_t)pointer + size <= r->address + r->size);
    pthread_mutex_unlock(&sim.memory_lock);
    return found;
}

void *sim_host_address(CUdeviceptr address) {
    if (sim_is_device(address))
        return (void *)(uintptr_t)(address + (uintptr_t)sim_shadow);
    if (sim_is_pinned_host((const void *)(uintptr_t)address,
                           1)) /* page-locked memory has one address for both sides */
        return (void *)(uintptr_t)address;
    const uint64_t nowhere =
        SIM_WINDOW + SIM_WINDOW_SIZE + SIM_NOWHERE_SIZE / 2 + (address & 0xfff);
    return (void *)(uintptr_t)(nowhere + (uintptr_t)sim_shadow);
}

static struct mapping *mapping_at(CUdeviceptr address) {
    for (struct mapping *m = mappings; m != NULL; m = m->next)
        if (address - m->address < m->size)
            return m;
    return NULL;
}

static struct reservation *reservation_at(CUdeviceptr address) {
    for (struct reservation *r = reservations; r != NULL; r = r->next)
        if (address - r->address < r->size)
            return r;
    return NULL;
}

bool sim_is_mapped(CUdeviceptr address, size_t size, bool write) {
    bool good = true;
    const int need = write ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_READ;
    pthread_mutex_lock(&sim.memory_lock);
    for (CUdeviceptr at = address; good && at - address < size;) {
        const struct mapping *m = mapping_at(at);
        good = m != NULL && (m->access & need) == need;
        if (good)
            at = m->address + m->size;
    }
    pthread_mutex_unlock(&sim.memory_lock);
    return good;
}

/* ---- physical memory; all under the lock ---- */

static int ordinal_of_minor(int minor) {
    for (int d = 0; d < sim.devices; d++)
        if (sim_gpu_of(d)->minor == minor)
            return d;
    return -1;
}

/* Bytes that CUDA_MPS_PINNED_DEVICE_MEM_LIMIT (`0=1G,1=512M`) leaves this MPS client on a device.
 */
static uint64_t pinned_limit(CUdevice device) {
    const char *list = getenv("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT");
    if (!sim.mps || list == NULL)
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

static CUresult new_physical(CUdevice device, uint64_t size, int exportable,
                             struct physical **out) {
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

static struct physical *physical_of(CUmemGenericAllocationHandle id) {
    for (struct physical *p = physicals; p != NULL; p = p->next)
        if (p->id == id && p->refs > 0)
            return p;
    return NULL;
}

static void maybe_free(struct physical *p) {
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
    pool_used(&sim.host, p->minor, 0); /* takes the file away if we were the last */
    free(p);
}

/* ---- mappings; all under the lock ---- */

static bool shadow_set(CUdeviceptr address, uint64_t size, int access, int fd) {
    void *at = (void *)(uintptr_t)(address + (uintptr_t)sim_shadow);
    const int rights = access == CU_MEM_ACCESS_FLAGS_PROT_READWRITE ? PROT_READ | PROT_WRITE
                       : access == CU_MEM_ACCESS_FLAGS_PROT_READ    ? PROT_READ
                                                                    : PROT_NONE;
    const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
    if (mmap(at, size, rights, flags | MAP_FIXED, fd, 0) == MAP_FAILED) {
        sim_say("simgpu: mapping of %llu bytes: refused by the host: %s", (unsigned long long)size,
                strerror(errno));
        return false;
    }
    madvise(at, size, MADV_DONTFORK);
    return true;
}

static CUresult map(CUdeviceptr address, struct physical *p, int access) {
    struct mapping *m = calloc(1, sizeof *m);
    if (m == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!shadow_set(address, p->size, access, p->fd)) {
        free(m);
        return CUDA_ERROR_MAP_FAILED;
    }
    *m = (struct mapping){
        .address = address, .size = p->size, .memory = p, .access = access, .next = mappings};
    p->maps++;
    mappings = m;
    return CUDA_SUCCESS;
}

static void unmap(struct mapping *gone) {
    for (struct mapping **at = &mappings; *at != NULL; at = &(*at)->next)
        if (*at == gone) {
            *at = gone->next;
            break;
        }
    shadow_set(gone->address, gone->size, CU_MEM_ACCESS_FLAGS_PROT_NONE, -1);
    gone->memory->maps--;
    maybe_free(gone->memory);
    free(gone);
}

/* ---- addresses; all under the lock ---- */

static bool address_free(CUdeviceptr address, uint64_t size) {
    if (address < SIM_WINDOW + SIM_GRANULARITY || address % SIM_GRANULARITY != 0 ||
        size > SIM_WINDOW_SIZE || address - SIM_WINDOW > SIM_WINDOW_SIZE - size)
        return false;
    for (const struct reservation *r = reservations; r != NULL; r = r->next)
        if (address < r->address + r->size && r->address < address + size)
            return false;
    return true;
}

/* The wish if it can be had, else the next free place; 0 when there is none. Places are not reused
 * soon: stale pointers show. */
static CUdeviceptr find_address(uint64_t size, CUdeviceptr wish, uint64_t alignment) {
    if (wish != 0 && wish % alignment == 0 && address_free(wish, size))
        return wish;
    for (int pass = 0; pass < 2; pass++) {
        for (;;) {
            CUdeviceptr at = (next_address + alignment - 1) / alignment * alignment;
            if (at - SIM_WINDOW > SIM_WINDOW_SIZE ||
                size + GUARD_GAP > SIM_WINDOW_SIZE - (at - SIM_WINDOW))
                break;
            if (address_free(at, size + GUARD_GAP)) {
                next_address = at + size + GUARD_GAP;
                return at;
            }
            next_address = at + SIM_GRANULARITY;
            for (const struct reservation *r = reservations; r != NULL; r = r->next)
                if (at - r->address < r->size)
                    next_address = r->address + r->size + GUARD_GAP;
        }
        next_address = SIM_WINDOW + SIM_GRANULARITY;
    }
    return 0;
}

static struct reservation *reserve(uint64_t size, CUdeviceptr wish, uint64_t alignment) {
    struct reservation *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->address = find_address(size, wish, alignment);
    r->size = size;
    if (r->address == 0) {
        free(r);
        return NULL;
    }
    r->next = reservations;
    reservations = r;
    return r;
}

static void unreserve(struct reservation *gone) {
    for (struct reservation **at = &reservations; *at != NULL; at = &(*at)->next)
        if (*at == gone) {
            *at = gone->next;
            break;
        }
    free(gone);
}

/* ---- the interface: virtual memory management ---- */

#define UNLOCK_AND_RETURN(result)                                                                  \
    do {                                                                                           \
        const CUresult result_ = (result);                                                         \
        pthread_mutex_unlock(&sim.memory_lock);                                                    \
        return result_;                                                                            \
    } while (0)

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
    result = new_physical(prop->location.id, size, prop->requestedHandleTypes, &p);
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
    maybe_free(p);
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

SIM_EXPORT CUresult cuMemAddressReserve(CUdeviceptr *address, size_t size, size_t alignment,
                                        CUdeviceptr wish, unsigned long long flags) {
    ENTER(NEED_HEALTH);
    if (alignment < SIM_GRANULARITY)
        alignment = SIM_GRANULARITY;
    if (address == NULL || flags != 0 || size == 0 || size % SIM_GRANULARITY != 0 ||
        (alignment & (alignment - 1)) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim.memory_lock);
    const struct reservation *r = reserve(size, wish, alignment);
    if (r == NULL)
        UNLOCK_AND_RETURN(CUDA_ERROR_OUT_OF_MEMORY);
    *address = r->address;
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

SIM_EXPORT CUresult cuMemAddressFree(CUdeviceptr address, size_t size) {
    ENTER(NEED_HEALTH);
    pthread_mutex_lock(&sim.memory_lock);
    struct reservation *r = reservation_at(address);
    if (r == NULL || r->context != NULL || r->address != address || r->size != size)
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    for (const struct mapping *m = mappings; m != NULL; m = m->next)
        if (m->address - address < size)
            UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    unreserve(r);
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

SIM_EXPORT CUresult cuMemMap(CUdeviceptr address, size_t size, size_t offset,
                             CUmemGenericAllocationHandle handle, unsigned long long flags) {
    ENTER(NEED_HEALTH);
    pthread_mutex_lock(&sim.memory_lock);
    struct physical *p = physical_of(handle);
    const struct reservation *r = reservation_at(address);
    if (p == NULL || r == NULL || r->context != NULL || flags != 0 || offset != 0 ||
        size != p->size || address % SIM_GRANULARITY != 0 ||
        size > r->size - (address - r->address))
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    for (const struct mapping *m = mappings; m != NULL; m = m->next)
        if (address < m->address + m->size && m->address < address + size)
            UNLOCK_AND_RETURN(CUDA_ERROR_ALREADY_MAPPED);
    UNLOCK_AND_RETURN(map(address, p, CU_MEM_ACCESS_FLAGS_PROT_NONE));
}

/* The range must consist of whole mappings without a hole. */
static bool whole_mappings(CUdeviceptr address, uint64_t size) {
    if (size == 0)
        return false;
    for (CUdeviceptr at = address; at - address < size;) {
        const struct mapping *m = mapping_at(at);
        if (m == NULL || m->address != at || m->size > size - (at - address))
            return false;
        at += m->size;
    }
    return true;
}

SIM_EXPORT CUresult cuMemUnmap(CUdeviceptr address, size_t size) {
    ENTER(NEED_HEALTH);
    pthread_mutex_lock(&sim.memory_lock);
    const struct reservation *r = reservation_at(address);
    if (r == NULL || r->context != NULL || !whole_mappings(address, size))
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    for (CUdeviceptr at = address; at - address < size;) {
        struct mapping *m = mapping_at(at);
        at += m->size;
        unmap(m);
    }
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

SIM_EXPORT CUresult cuMemSetAccess(CUdeviceptr address, size_t size, const CUmemAccessDesc *desc,
                                   size_t n) {
    ENTER(NEED_HEALTH);
    if (desc == NULL || n != 1) /* one device at a time: peer access is not simulated */
        return n > 1 ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
    const int access = desc->flags;
    if (desc->location.type != CU_MEM_LOCATION_TYPE_DEVICE || !sim_device_ok(desc->location.id) ||
        (access != CU_MEM_ACCESS_FLAGS_PROT_NONE && access != CU_MEM_ACCESS_FLAGS_PROT_READ &&
         access != CU_MEM_ACCESS_FLAGS_PROT_READWRITE))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim.memory_lock);
    if (!whole_mappings(address, size))
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    for (CUdeviceptr at = address; at - address < size;) {
        struct mapping *m = mapping_at(at);
        if (m->memory->device != desc->location.id)
            UNLOCK_AND_RETURN(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
        if (!shadow_set(m->address, m->size, access, m->memory->fd))
            UNLOCK_AND_RETURN(CUDA_ERROR_OPERATING_SYSTEM);
        m->access = access;
        at += m->size;
    }
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

SIM_EXPORT CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location,
                                   CUdeviceptr address) {
    ENTER(NEED_HEALTH);
    pthread_mutex_lock(&sim.memory_lock);
    const struct mapping *m = mapping_at(address);
    if (flags == NULL || location == NULL || m == NULL ||
        location->type != CU_MEM_LOCATION_TYPE_DEVICE)
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    *flags = location->id == m->memory->device ? (unsigned long long)m->access : 0;
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

/* ---- the interface: plain allocations ---- */

SIM_EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    ENTER(NEED_HEALTH);
    if (free_bytes == NULL || total == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    const struct sim_gpu *gpu = sim_gpu_of(sim_current()->device);
    *total = gpu->memory;
    *free_bytes = gpu->memory - pool_used(&sim.host, gpu->minor, 0);
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    ENTER(NEED_HEALTH);
    if (address == NULL || size == 0)
        return CUDA_ERROR_INVALID_VALUE;
    const CUcontext context = sim_current();
    if (context == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (size > SIM_WINDOW_SIZE)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const uint64_t whole = (size + SIM_GRANULARITY - 1) / SIM_GRANULARITY * SIM_GRANULARITY;
    struct physical *p;
    pthread_mutex_lock(&sim.memory_lock);
    CUresult result = new_physical(context->device, whole, CU_MEM_HANDLE_TYPE_NONE, &p);
    if (result != CUDA_SUCCESS)
        UNLOCK_AND_RETURN(result);
    struct reservation *r = reserve(whole, 0, SIM_GRANULARITY);
    result = r == NULL ? CUDA_ERROR_OUT_OF_MEMORY
                       : map(r->address, p, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    p->refs = 0; /* the mapping alone holds it */
    if (result == CUDA_SUCCESS) {
        r->context = context;
        r->asked = size;
        *address = r->address;
    } else {
        if (r != NULL)
            unreserve(r);
        maybe_free(p);
    }
    UNLOCK_AND_RETURN(result);
}

SIM_EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
    ENTER(NEED_HEALTH);
    if (address == 0)
        return CUDA_SUCCESS;
    pthread_mutex_lock(&sim.memory_lock);
    struct reservation *r = reservation_at(address);
    const CUcontext context = r != NULL && r->address == address ? r->context : NULL;
    pthread_mutex_unlock(&sim.memory_lock);
    if (context == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    const CUresult waited =
        sim_wait_context(context); /* CUDA frees when the work that may use it is done */
    if (waited != CUDA_SUCCESS)
        return waited;
    pthread_mutex_lock(&sim.memory_lock);
    r = reservation_at(address); /* another thread may have been faster */
    if (r == NULL || r->address != address || r->context != context)
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    unmap(mapping_at(address));
    unreserve(r);
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

void sim_context_memory_free(CUcontext context) {
    pthread_mutex_lock(&sim.memory_lock);
    for (struct reservation **at = &reservations; *at != NULL;) {
        struct reservation *r = *at;
        if (r->context != context) {
            at = &r->next;
            continue;
        }
        unmap(mapping_at(r->address));
        *at = r->next;
        free(r);
    }
    pthread_mutex_unlock(&sim.memory_lock);
}

SIM_EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr address) {
    ENTER(NEED_HEALTH);
    pthread_mutex_lock(&sim.memory_lock);
    const struct mapping *m = mapping_at(address);
    const struct reservation *r = reservation_at(address);
    if (m == NULL || r == NULL)
        UNLOCK_AND_RETURN(CUDA_ERROR_NOT_FOUND);
    if (base != NULL)
        *base = m->address;
    if (size != NULL)
        *size = r->context != NULL ? r->asked : m->size;
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

SIM_EXPORT CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr address) {
    ENTER(NEED_HEALTH);
    const bool host = sim_is_pinned_host((const void *)(uintptr_t)address, 1);
    pthread_mutex_lock(&sim.memory_lock);
    const struct mapping *m = mapping_at(address);
    const struct reservation *r = reservation_at(address);
    if (data == NULL || (m == NULL && !host))
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    CUresult result = CUDA_SUCCESS;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)data = host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)data = address;
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = host ? 0 : m->memory->device;
        break;
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *(CUcontext *)data = r != NULL ? r->context : NULL;
        break;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (host)
            *(void **)data = (void *)(uintptr_t)address;
        else
            result = CUDA_ERROR_INVALID_VALUE;
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        if (host)
            result = CUDA_ERROR_INVALID_VALUE;
        else if (attribute == CU_POINTER_ATTRIBUTE_RANGE_SIZE)
            *(size_t *)data = r->context != NULL ? r->asked : m->size;
        else
            *(CUdeviceptr *)data = m->address;
        break;
    default:
        result = CUDA_ERROR_NOT_SUPPORTED;
    }
    UNLOCK_AND_RETURN(result);
}

/* ---- the interface: page-locked host memory ---- */

static CUresult add_host_range(void *address, size_t size, bool ours) {
    struct host_range *r = calloc(1, sizeof *r);
    if (r == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&sim.memory_lock);
    *r = (struct host_range){
        .address = (uintptr_t)address, .size = size, .ours = ours, .next = host_ranges};
    host_ranges = r;
    UNLOCK_AND_RETURN(CUDA_SUCCESS);
}

static CUresult remove_host_range(void *address, bool ours) {
    pthread_mutex_lock(&sim.memory_lock);
    for (struct host_range **at = &host_ranges; *at != NULL; at = &(*at)->next) {
        struct host_range *r = *at;
        if (r->address != (uintptr_t)address || r->ours != ours)
            continue;
        *at = r->next;
        free(r);
        UNLOCK_AND_RETURN(CUDA_SUCCESS);
    }
    UNLOCK_AND_RETURN(ours ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

SIM_EXPORT CUresult cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    ENTER(NEED_HEALTH);
    if (address == NULL || size == 0 || flags > 7)
        return CUDA_ERROR_INVALID_VALUE;
    if (sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    void *memory;
    if (posix_memalign(&memory, 4096, size) != 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *address = memory;
    return add_host_range(memory, size, true);
}

SIM_EXPORT CUresult cuMemAllocHost_v2(void **address, size_t size) {
    ENTER(NEED_HEALTH);
    return cuMemHostAlloc(address, size, 0);
}

SIM_EXPORT CUresult cuMemFreeHost(void *address) {
    ENTER(NEED_HEALTH);
    const CUresult result = remove_host_range(address, true);
    if (result == CUDA_SUCCESS)
        free(address);
    return result;
}

SIM_EXPORT CUresult cuMemHostRegister_v2(void *address, size_t size, unsigned flags) {
    ENTER(NEED_HEALTH);
    if (address == NULL || size == 0 || flags > 15)
        return CUDA_ERROR_INVALID_VALUE;
    if (sim_is_pinned_host(address, 1))
        return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    return add_host_range(address, size, false);
}

SIM_EXPORT CUresult cuMemHostUnregister(void *address) {
    ENTER(NEED_HEALTH);
    return remove_host_range(address, false);
}

SIM_EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *address,
                                                 unsigned flags) {
    ENTER(NEED_HEALTH);
    if (device == NULL || flags != 0 || !sim_is_pinned_host(address, 1))
        return CUDA_ERROR_INVALID_VALUE;
    *device = (CUdeviceptr)(uintptr_t)address;
    return CUDA_SUCCESS;
}

/* In a forked child, where only this thread is left and locks may be held for ever: drop every
 * descriptor. */
void sim_memory_after_fork(void) {
    for (const struct physical *p = physicals; p != NULL; p = p->next)
        close(p->fd);
}
