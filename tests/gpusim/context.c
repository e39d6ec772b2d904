/* Contexts: created ones, the primary one of each device, and each thread's stack of current ones.
 *
 * A process with a context on a GPU holds a locked file procs/<minor>.<pid>: NVML lists the
 * processes from these. The lock ends with the process, however it ends. Context records are never
 * freed, so that a stale handle is always recognised.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim.h"

#define STACK_DEPTH 32

static struct CUctx_st *contexts; /* under sim.memory_lock, like all of this file but the stacks */
static struct CUctx_st *primary[SIM_MAX_GPUS];
static unsigned primary_flags[SIM_MAX_GPUS];
static int holders[SIM_MAX_GPUS];   /* live contexts, by device */
static int holder_fd[SIM_MAX_GPUS]; /* the locked file, while holders > 0 */

static _Thread_local struct {
    CUcontext entry[STACK_DEPTH];
    int depth;
} stack;

CUcontext sim_current(void) {
    return stack.depth == 0 ? NULL : stack.entry[stack.depth - 1];
}

bool sim_context_ok(CUcontext context) {
    bool found = false;
    pthread_mutex_lock(&sim.memory_lock);
    for (struct CUctx_st *c = contexts; c != NULL; c = c->next)
        found = found || (c == context && c->alive);
    pthread_mutex_unlock(&sim.memory_lock);
    return found;
}

static void process_file(CUdevice device, char *path, size_t size) {
    snprintf(path, size, "%s/procs/%d.%d", sim.host.dir, sim_gpu_of(device)->minor, sim_pid());
}

static void hold(CUdevice device) {
    char path[256], text[64];
    if (holders[device]++ > 0)
        return;
    process_file(device, path, sizeof path);
    unlink(path); /* of an earlier process with this pid */
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    const int n = snprintf(text, sizeof text, "mps=%d uid=%u\n", sim.mps, getuid());
    if (fd < 0 || fchmod(fd, 0644) < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 ||
        write(fd, text, (size_t)n) != n)
        sim_say("simgpu: %s: cannot be written: %s", path, strerror(errno));
    holder_fd[device] = fd;
}

static void let_go(CUdevice device) {
    char path[256];
    if (--holders[device] > 0)
        return;
    process_file(device, path, sizeof path);
    unlink(path);
    if (holder_fd[device] >= 0)
        close(holder_fd[device]);
}

static struct CUctx_st *new_context(CUdevice device, unsigned flags) {
    struct CUctx_st *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    sim_sleep_ms(sim_number(&sim.host, "context_ms", sim.host.context_ms));
    c->device = device;
    c->flags = flags;
    c->alive = true;
    c->memory_fd = -1;
    const int mib = sim_number(&sim.host, "context_mib", sim.host.context_mib);
    if (mib > 0 &&
        pool_create(&sim.host, sim_gpu_of(device), (uint64_t)mib << 20, &c->memory_fd) != 0) {
        free(c);
        return NULL;
    }
    c->null_stream = sim_stream_new(c, 0, 0);
    if (c->null_stream == NULL) {
        if (c->memory_fd >= 0)
            close(c->memory_fd);
        free(c);
        return NULL;
    }
    pthread_mutex_lock(&sim.memory_lock);
    c->next = contexts;
    contexts = c;
    hold(device);
    pthread_mutex_unlock(&sim.memory_lock);
    return c;
}

static void end_context(struct CUctx_st *c) {
    sim_wait_context(c);
    sim_context_streams_end(c);
    pthread_mutex_lock(&sim.memory_lock);
    c->alive = false;
    let_go(c->device);
    if (c->memory_fd >= 0)
        close(c->memory_fd);
    c->memory_fd = -1;
    pthread_mutex_unlock(&sim.memory_lock);
    sim_context_memory_free(c);
}

/* In a forked child: its copies of our locked files must not keep them alive. */
void sim_contexts_after_fork(void) {
    for (const struct CUctx_st *c = contexts; c != NULL; c = c->next)
        if (c->memory_fd >= 0)
            close(c->memory_fd);
    for (int d = 0; d < sim.devices; d++)
        if (holders[d] > 0 && holder_fd[d] >= 0)
            close(holder_fd[d]);
}

static CUresult push(CUcontext context) {
    if (stack.depth == STACK_DEPTH)
        return CUDA_ERROR_OUT_OF_MEMORY;
    stack.entry[stack.depth++] = context;
    return CUDA_SUCCESS;
}

static CUresult create(CUcontext *context, unsigned flags, CUdevice device) {
    if (context == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_device_ok(device))
        return CUDA_ERROR_INVALID_DEVICE;
    *context = new_context(device, flags);
    return *context == NULL ? CUDA_ERROR_OUT_OF_MEMORY : push(*context);
}

SIM_EXPORT CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
    ENTER(NEED_HEALTH);
    return create(context, flags, device);
}

SIM_EXPORT CUresult cuCtxCreate_v3(CUcontext *context, CUexecAffinityParam *affinity, int n,
                                   unsigned flags, CUdevice device) {
    ENTER(NEED_HEALTH);
    if (affinity != NULL || n != 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    return create(context, flags, device);
}

SIM_EXPORT CUresult cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *parameters,
                                   unsigned flags, CUdevice device) {
    ENTER(NEED_HEALTH);
    if (parameters != NULL &&
        (parameters->numExecAffinityParams != 0 || parameters->cigParams != NULL))
        return CUDA_ERROR_NOT_SUPPORTED;
    return create(context, flags, device);
}

SIM_EXPORT CUresult cuCtxDestroy_v2(CUcontext context) {
    ENTER(NEED_INIT);
    if (!sim_context_ok(context) || context == primary[context->device])
        return CUDA_ERROR_INVALID_CONTEXT;
    end_context(context);
    if (sim_current() == context)
        stack.depth--;
    return sim_sticky();
}

SIM_EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context) {
    ENTER(NEED_HEALTH);
    return sim_context_ok(context) ? push(context) : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context) {
    ENTER(NEED_HEALTH);
    if (stack.depth == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    stack.depth--;
    if (context != NULL)
        *context = stack.entry[stack.depth];
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    ENTER(NEED_HEALTH);
    if (context != NULL && !sim_context_ok(context))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (stack.depth > 0)
        stack.depth--;
    return context == NULL ? CUDA_SUCCESS : push(context);
}

SIM_EXPORT CUresult cuCtxGetCurrent(CUcontext *context) {
    ENTER(NEED_INIT);
    if (context == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *context = sim_current();
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuCtxGetDevice(CUdevice *device) {
    ENTER(NEED_HEALTH);
    if (sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    *device = sim_current()->device;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuCtxGetFlags(unsigned *flags) {
    ENTER(NEED_HEALTH);
    if (sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    *flags = sim_current()->flags;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version) {
    ENTER(NEED_HEALTH);
    if (context != NULL && !sim_context_ok(context))
        return CUDA_ERROR_INVALID_CONTEXT;
    *version = 3020;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    ENTER(NEED_HEALTH);
    if (sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (least != NULL)
        *least = 0;
    if (greatest != NULL)
        *greatest = -5;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuCtxSynchronize(void) {
    ENTER(NEED_HEALTH);
    return sim_current() == NULL ? CUDA_ERROR_INVALID_CONTEXT : sim_wait_context(sim_current());
}

SIM_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    ENTER(NEED_HEALTH);
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    if (!sim_device_ok(device))
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&one);
    if (primary[device] == NULL)
        primary[device] = new_context(device, primary_flags[device]);
    struct CUctx_st *c = primary[device];
    if (c != NULL)
        c->references++;
    pthread_mutex_unlock(&one);
    if (c == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *context = c;
    return CUDA_SUCCESS;
}

static CUresult primary_end(CUdevice device, bool all) {
    struct CUctx_st *c = sim_device_ok(device) ? primary[device] : NULL;
    if (c == NULL)
        return !sim_device_ok(device) ? CUDA_ERROR_INVALID_DEVICE
               : all                  ? CUDA_SUCCESS
                                      : CUDA_ERROR_INVALID_CONTEXT;
    c->references = all ? 0 : c->references - 1;
    if (c->references == 0) {
        primary[device] = NULL;
        end_context(c);
    }
    return sim_sticky();
}

SIM_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    ENTER(NEED_INIT);
    return primary_end(device, false);
}

SIM_EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
    ENTER(NEED_INIT);
    return primary_end(device, true);
}

SIM_EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
    ENTER(NEED_HEALTH);
    if (!sim_device_ok(device))
        return CUDA_ERROR_INVALID_DEVICE;
    primary_flags[device] = flags;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    ENTER(NEED_HEALTH);
    if (!sim_device_ok(device))
        return CUDA_ERROR_INVALID_DEVICE;
    *flags = primary_flags[device];
    *active = primary[device] != NULL;
    return CUDA_SUCCESS;
}
