/* Device addresses of a process: the window, what is reserved in it, what is mapped where.
 *
 * Device addresses lie in a window that is never mapped at those numbers; the library's own view of
 * the same bytes is a shadow of the window at a constant distance. A program that dereferences a
 * device pointer on the CPU therefore dies, as with a GPU. The shadow is reserved without access; a
 * mapping puts the memory's file over it with the rights of cuMemSetAccess, so that the CPU itself
 * finds illegal accesses of kernels. Behind the shadow lies a region where addresses that are no
 * device addresses lead to: using one faults, having one does not. Forked children inherit none of
 * it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"

intptr_t sim_shadow;

#define SHADOW_WANTED 0x300000000000ull
#define GUARD_GAP                                                                                  \
    SIM_GRANULARITY /* between reservations of our choice: a stray access just behind one faults   \
                     */

/* Sorted by address: a process may have thousands, when it maps one granule again and again. */
static struct mapping **mappings;
static size_t n_mappings, mappings_room;
struct reservation *reservations;
static CUdeviceptr next_address = SIM_WINDOW + SIM_GRANULARITY;

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

/* How many mappings end at or before an address. */
static size_t mappings_before(CUdeviceptr address) {
    size_t low = 0, high = n_mappings;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (mappings[middle]->address + mappings[middle]->size <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct mapping *mapping_at(CUdeviceptr address) {
    const size_t at = mappings_before(address);
    return at < n_mappings && mappings[at]->address <= address ? mappings[at] : NULL;
}

bool mapping_overlaps(CUdeviceptr address, uint64_t size) {
    const size_t at = mappings_before(address);
    return at < n_mappings && mappings[at]->address < address + size;
}

struct reservation *reservation_at(CUdeviceptr address) {
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

/* ---- mappings; the caller holds the lock ---- */

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

CUresult mapping_new(CUdeviceptr address, struct physical *p, int access) {
    if (n_mappings == mappings_room) {
        const size_t room = mappings_room == 0 ? 64 : 2 * mappings_room;
        struct mapping **grown = realloc(mappings, room * sizeof *grown);
        if (grown == NULL)
            return CUDA_ERROR_OUT_OF_MEMORY;
        mappings = grown;
        mappings_room = room;
    }
    struct mapping *m = calloc(1, sizeof *m);
    if (m == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* Memory that is mapped already comes here again and again, most of it never to be used: into
     * the shadow when it is touched, since each piece there costs the host some microseconds. */
    const bool unseen = p->maps > 0;
    if (!unseen && !shadow_set(address, p->size, access, p->fd)) {
        free(m);
        return CUDA_ERROR_MAP_FAILED;
    }
    *m = (struct mapping){
        .address = address, .size = p->size, .memory = p, .access = access, .unseen = unseen};
    p->maps++;
    const size_t at = mappings_before(address);
    memmove(mappings + at + 1, mappings + at, (n_mappings - at) * sizeof *mappings);
    mappings[at] = m;
    n_mappings++;
    return CUDA_SUCCESS;
}

CUresult mapping_access(struct mapping *m, int access) {
    if (!m->unseen && !shadow_set(m->address, m->size, access, m->memory->fd))
        return CUDA_ERROR_OPERATING_SYSTEM;
    m->access = access;
    return CUDA_SUCCESS;
}

bool sim_touched(CUdeviceptr address, bool write) {
    const int need = write ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_READ;
    pthread_mutex_lock(&sim.memory_lock);
    struct mapping *m = mapping_at(address);
    bool good = m != NULL && (m->access & need) == need;
    if (good && m->unseen) { /* else another thread was faster, and it is there now */
        m->unseen = false;
        good = shadow_set(m->address, m->size, m->access, m->memory->fd);
    }
    pthread_mutex_unlock(&sim.memory_lock);
    return good;
}

void sim_spoil(void) {
    static uint64_t times;
    pthread_mutex_lock(&sim.memory_lock);
    for (size_t at = 0; at < n_mappings; at++)
        if (!mappings[at]->unseen && mappings[at]->access == CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
            *(unsigned char *)sim_host_address(mappings[at]->address +
                                               8 * times % SIM_GRANULARITY) ^= 1;
    times++;
    pthread_mutex_unlock(&sim.memory_lock);
}

/* All that lie in the range, which cuts none. One call to the host for the lot: it is what the time
 * goes into. */
void mappings_free(CUdeviceptr address, uint64_t size) {
    const size_t first = mappings_before(address);
    size_t end = first;
    shadow_set(address, size, CU_MEM_ACCESS_FLAGS_PROT_NONE, -1);
    for (; end < n_mappings && mappings[end]->address < address + size; end++) {
        mappings[end]->memory->maps--;
        physical_maybe_free(mappings[end]->memory);
        free(mappings[end]);
    }
    memmove(mappings + first, mappings + end, (n_mappings - end) * sizeof *mappings);
    n_mappings -= end - first;
}

void mapping_free(struct mapping *gone) {
    mappings_free(gone->address, gone->size);
}

/* ---- addresses; the caller holds the lock ---- */

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

struct reservation *reservation_new(uint64_t size, CUdeviceptr wish, uint64_t alignment) {
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

void reservation_free(struct reservation *gone) {
    for (struct reservation **at = &reservations; *at != NULL; at = &(*at)->next)
        if (*at == gone) {
            *at = gone->next;
            break;
        }
    free(gone);
}
