/* cuMemAddressReserve, cuMemMap, cuMemSetAccess and their opposites.
 *
 * A wished address is honoured whenever it is free, so that a process can have its state at the
 * address that another had. As documented: a handle is mapped whole and from offset 0, a new
 * mapping has no access, cuMemUnmap and cuMemSetAccess take whole mappings, one or many side by
 * side (as NVIDIA's sample vectorAddMMAP unmaps). A handle may be mapped at several addresses at
 * once; they are the same bytes. Unmapping does not wait for work that uses the memory: that work
 * then faults. Work that was captured or launched names addresses: it meets what is mapped there
 * when it runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"

SIM_EXPORT CUresult cuMemAddressReserve(CUdeviceptr *address, size_t size, size_t alignment,
                                        CUdeviceptr wish, unsigned long long flags) {
    ENTER(NEED_HEALTH);
    if (alignment < SIM_GRANULARITY)
        alignment = SIM_GRANULARITY;
    if (address == NULL || flags != 0 || size == 0 || size % SIM_GRANULARITY != 0 ||
        (alignment & (alignment - 1)) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim.memory_lock);
    const struct reservation *r = reservation_new(size, wish, alignment);
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
    if (mapping_overlaps(address, size))
        UNLOCK_AND_RETURN(CUDA_ERROR_INVALID_VALUE);
    reservation_free(r);
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
    if (mapping_overlaps(address, size))
        UNLOCK_AND_RETURN(CUDA_ERROR_ALREADY_MAPPED);
    UNLOCK_AND_RETURN(mapping_new(address, p, CU_MEM_ACCESS_FLAGS_PROT_NONE));
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
    mappings_free(address, size);
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
        const CUresult result = mapping_access(m, access);
        if (result != CUDA_SUCCESS)
            UNLOCK_AND_RETURN(result);
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
