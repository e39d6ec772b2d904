/* Page-locked host memory: on a CPU all memory can be reached, so this only keeps the list of what
 * counts as page-locked.
 *
 * It matters for asynchronous copies (copy.c) and because kernels may use such addresses as they
 * are.
 */
#include <stdlib.h>

#include "memory.h"

struct host_range {
    uintptr_t address;
    size_t size;
    bool ours; /* allocated here, not registered */
    struct host_range *next;
};

static struct host_range *host_ranges; /* under sim.memory_lock */

bool sim_is_pinned_host(const void *pointer, size_t size) {
    bool found = false;
    pthread_mutex_lock(&sim.memory_lock);
    for (struct host_range *r = host_ranges; r != NULL; r = r->next)
        found = found || ((uintptr_t)pointer >= r->address &&
                          (uintptr_t)pointer + size <= r->address + r->size);
    pthread_mutex_unlock(&sim.memory_lock);
    return found;
}

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
