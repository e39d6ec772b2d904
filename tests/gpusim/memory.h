/* Device memory inside libcuda: the lists that space.c, handle.c, vmm.c and alloc.c share, all
 * under sim.memory_lock.
 *
 * A `physical` is one handle of this process to a piece of physical memory (pool.c); a `mapping`
 * puts it at a device address inside a `reservation`. Physical memory goes when its last reference
 * and its last mapping have gone, here and elsewhere.
 */
#ifndef GPUSIM_MEMORY_H
#define GPUSIM_MEMORY_H

#include "sim.h"

struct physical {
    int fd;
    uint64_t size;
    int minor;
    int device;     /* ordinal in this process */
    int exportable; /* handle types, as asked for at creation */
    int refs, maps; /* refs: cuMemCreate, imports, retains */
    bool limited;   /* counts against this client's limit of pinned memory */
    CUmemGenericAllocationHandle id;
    struct physical *next;
};

struct mapping {
    CUdeviceptr address;
    uint64_t size;
    struct physical *memory;
    int access;
    bool unseen; /* not yet in the shadow: nobody has touched it */
};

struct reservation {
    CUdeviceptr address;
    uint64_t size;
    CUcontext context; /* of cuMemAlloc; NULL: cuMemAddressReserve */
    uint64_t asked;    /* bytes that cuMemAlloc was asked for */
    struct reservation *next;
};

/* handle.c */
CUresult physical_new(CUdevice device, uint64_t size, int exportable, struct physical **out);
struct physical *physical_of(CUmemGenericAllocationHandle id);
void physical_maybe_free(struct physical *p);

/* space.c */
extern struct reservation *reservations;
struct mapping *mapping_at(CUdeviceptr address);
bool mapping_overlaps(CUdeviceptr address, uint64_t size);
struct reservation *reservation_at(CUdeviceptr address);
struct reservation *reservation_new(uint64_t size, CUdeviceptr wish, uint64_t alignment);
void reservation_free(struct reservation *gone);
CUresult mapping_new(CUdeviceptr address, struct physical *p, int access);
CUresult mapping_access(struct mapping *m, int access);
void mapping_free(struct mapping *gone);
void mappings_free(CUdeviceptr address, uint64_t size);

#define UNLOCK_AND_RETURN(result)                                                                  \
    do {                                                                                           \
        const CUresult result_ = (result);                                                         \
        pthread_mutex_unlock(&sim.memory_lock);                                                    \
        return result_;                                                                            \
    } while (0)

#endif
