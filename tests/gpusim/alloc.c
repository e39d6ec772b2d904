/* cuMemAlloc, cuMemGetInfo and what can be asked of a pointer.
 *
 * Each cuMemAlloc is physical memory and a reservation of its own, rounded up to whole granules:
 * exact to count, wasteful for many small ones. It belongs to its context and goes with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"

SIM_EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    ENTER(NEED_HEALTH);
    if (free_bytes == NULL || total == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    const struct sim_gpu *gpu = sim_gpu_of(sim_current()->device);
    *total = gpu->memory;
    *free_bytes = gpu->memory - pool_used(&sim.host, gpu->minor);
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
    CUresult result = physical_new(context->device, whole, CU_MEM_HANDLE_TYPE_NONE, &p);
    if (result != CUDA_SUCCESS)
        UNLOCK_AND_RETURN(result);
    struct reservation *r = reservation_new(whole, 0, SIM_GRANULARITY);
    result = r == NULL ? CUDA_ERROR_OUT_OF_MEMORY
                       : mapping_new(r->address, p, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    p->refs = 0; /* the mapping alone holds it */
    if (result == CUDA_SUCCESS) {
        r->context = context;
        r->asked = size;
        *address = r->address;
    } else {
        if (r != NULL)
            reservation_free(r);
        physical_maybe_free(p);
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
    mapping_free(mapping_at(address));
    reservation_free(r);
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
        mapping_free(mapping_at(r->address));
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
