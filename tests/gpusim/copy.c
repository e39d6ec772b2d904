/* Copies and fills, through the streams.
 *
 * A synchronous call checks its device range first, as the driver does: an address that is not
 * memory is error 1 and nothing else happens. An asynchronous one is found out when it runs: error
 * 700 and Xid 31 of the copy engine. Host memory that is not page-locked is staged as the driver
 * does it: read before the call returns, or the call waits until it is written. So a "synchronous"
 * call does not always wait for the device ("API synchronization behavior" in the CUDA driver API):
 * a copy from ordinary host memory returns when its bytes are staged, a copy within the device and
 * a fill return at once. Only the null stream's order then makes others wait for them.
 */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum fill_unit { UNIT_1 = 1, UNIT_2 = 2, UNIT_4 = 4 };

struct copy {
    struct sim_work work;
    void *to;
    const void *from; /* NULL: fill */
    void *staged;     /* freed with the copy */
    size_t size;      /* bytes */
    uint32_t value;
    enum fill_unit unit;
    CUdeviceptr device_to, device_from; /* 0: host side */
};

static void do_copy(void *argument) {
    const struct copy *c = argument;
    if (c->from != NULL) {
        memmove(c->to, c->from, c->size);
        return;
    }
    for (size_t i = 0; c->unit == UNIT_4 && i < c->size / 4; i++)
        ((uint32_t *)c->to)[i] = c->value;
    for (size_t i = 0; c->unit == UNIT_2 && i < c->size / 2; i++)
        ((uint16_t *)c->to)[i] = (uint16_t)c->value;
    if (c->unit == UNIT_1)
        memset(c->to, (int)c->value, c->size);
}

static void run_copy(struct sim_work *work) {
    struct copy *c = (struct copy *)work;
    const struct sim_stopped stopped = sim_guarded(do_copy, c);
    const CUdeviceptr bad = c->device_to != 0 && !sim_is_mapped(c->device_to, c->size, true)
                                ? c->device_to
                                : c->device_from;
    sim_raise(sim_stream_device(work->stream), &stopped, true, bad);
}

static void drop_copy(struct sim_work *work) {
    free(((struct copy *)work)->staged);
}

static CUresult submit(struct copy c, CUstream stream) {
    struct copy *copy = malloc(sizeof *copy);
    if (copy == NULL) {
        free(c.staged);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *copy = c;
    copy->work = (struct sim_work){.run = run_copy, .drop = drop_copy};
    return sim_submit(stream, &copy->work);
}

static CUresult copy(CUdeviceptr to, const void *host_from, CUdeviceptr from, void *host_to,
                     size_t size, CUstream handle, bool synchronous) {
    CUstream stream;
    CUresult result = sim_stream_resolve(handle, &stream);
    if (result != CUDA_SUCCESS || size == 0)
        return result;
    if (synchronous && ((host_to == NULL && !sim_is_mapped(to, size, true)) ||
                        (host_from == NULL && !sim_is_mapped(from, size, false))))
        return CUDA_ERROR_INVALID_VALUE;
    struct copy c = {.size = size};
    c.device_to = host_to == NULL ? to : 0;
    c.device_from = host_from == NULL ? from : 0;
    c.to = host_to != NULL ? host_to : sim_host_address(to);
    c.from = host_from != NULL ? host_from : sim_host_address(from);
    const bool pinned = (host_from != NULL && sim_is_pinned_host(host_from, size)) ||
                        (host_to != NULL && sim_is_pinned_host(host_to, size));
    if (host_from != NULL && !pinned) {
        if (synchronous)
            result = sim_wait_stream(stream);
        if (result != CUDA_SUCCESS)
            return result;
        c.staged = malloc(size);
        if (c.staged == NULL)
            return CUDA_ERROR_OUT_OF_MEMORY;
        memcpy(c.staged, host_from, size);
        c.from = c.staged;
    }
    const bool wait =
        host_to != NULL ? synchronous || !pinned : host_from != NULL && synchronous && pinned;
    result = submit(c, stream);
    return result == CUDA_SUCCESS && wait ? sim_wait_stream(stream) : result;
}

SIM_EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size) {
    ENTER(NEED_HEALTH);
    return from == NULL ? CUDA_ERROR_INVALID_VALUE : copy(to, from, 0, NULL, size, NULL, true);
}

SIM_EXPORT CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size) {
    ENTER(NEED_HEALTH);
    return to == NULL ? CUDA_ERROR_INVALID_VALUE : copy(0, NULL, from, to, size, NULL, true);
}

SIM_EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t size) {
    ENTER(NEED_HEALTH);
    return copy(to, NULL, from, NULL, size, NULL, true);
}

SIM_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size,
                                         CUstream stream) {
    ENTER(NEED_HEALTH);
    return from == NULL ? CUDA_ERROR_INVALID_VALUE : copy(to, from, 0, NULL, size, stream, false);
}

SIM_EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER(NEED_HEALTH);
    return to == NULL ? CUDA_ERROR_INVALID_VALUE : copy(0, NULL, from, to, size, stream, false);
}

SIM_EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size,
                                         CUstream stream) {
    ENTER(NEED_HEALTH);
    return copy(to, NULL, from, NULL, size, stream, false);
}

/* Unified addressing: the addresses themselves say which side they are on. */
static CUresult copy_unified(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream,
                             bool wait) {
    void *host_to = sim_is_device(to) ? NULL : (void *)(uintptr_t)to;
    const void *host_from = sim_is_device(from) ? NULL : (const void *)(uintptr_t)from;
    if (host_to != NULL && host_from != NULL) {
        const CUcontext context = sim_current();
        const CUresult result =
            context == NULL ? CUDA_ERROR_INVALID_CONTEXT : sim_wait_context(context);
        if (result == CUDA_SUCCESS)
            memmove(host_to, host_from, size);
        return result;
    }
    return copy(to, host_from, from, host_to, size, stream, wait);
}

SIM_EXPORT CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t size) {
    ENTER(NEED_HEALTH);
    return copy_unified(to, from, size, NULL, true);
}

SIM_EXPORT CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER(NEED_HEALTH);
    return copy_unified(to, from, size, stream, false);
}

static CUresult fill(CUdeviceptr to, uint32_t value, enum fill_unit unit, size_t n, CUstream handle,
                     bool synchronous) {
    CUstream stream;
    CUresult result = sim_stream_resolve(handle, &stream);
    if (result != CUDA_SUCCESS || n == 0)
        return result;
    if (to % unit != 0 || n > SIM_WINDOW_SIZE / unit ||
        (synchronous && !sim_is_mapped(to, n * unit, true)))
        return CUDA_ERROR_INVALID_VALUE;
    return submit((struct copy){.to = sim_host_address(to),
                                .device_to = to,
                                .size = n * unit,
                                .value = value,
                                .unit = unit},
                  stream);
}

#define FILL(bits, type, unit)                                                                     \
    SIM_EXPORT CUresult cuMemsetD##bits##_v2(CUdeviceptr to, type value, size_t n) {               \
        ENTER(NEED_HEALTH);                                                                        \
        return fill(to, value, unit, n, NULL, true);                                               \
    }                                                                                              \
    SIM_EXPORT CUresult cuMemsetD##bits##Async(CUdeviceptr to, type value, size_t n,               \
                                               CUstream stream) {                                  \
        ENTER(NEED_HEALTH);                                                                        \
        return fill(to, value, unit, n, stream, false);                                            \
    }

FILL(8, unsigned char, UNIT_1)
FILL(16, unsigned short, UNIT_2)
FILL(32, unsigned, UNIT_4)
