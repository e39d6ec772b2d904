/* Launches copy the arguments, turn device addresses into host ones and are queued; pointers that
 * point nowhere fault only when they are used.
 *
 * The threads of an ordinary launch run one after the other. Of a cooperative one each block has a
 * host thread, so that blocks can wait for each other; when one of them faults the others are
 * ended, too.
 */
#include <stdlib.h>
#include <string.h>

#include "module.h"

#define MOST_BLOCKS 132 /* of a cooperative launch: one for each SM of an H200 */

struct launch {
    struct sim_work work;
    const struct sim_kernel *kernel;
    unsigned grid, block;
    unsigned long long slot[SIM_MAX_PARAMETERS];
    CUdeviceptr bad; /* the first pointer that points nowhere, for the kernel log */
};

static void do_launch(void *argument) {
    const struct launch *l = argument;
    l->kernel->run(l->grid, l->block, 0, l->grid, l->slot);
}

static void run_launch(struct sim_work *work) {
    struct launch *l = (struct launch *)work;
    const struct sim_stopped stopped = sim_guarded(do_launch, l);
    sim_raise(sim_stream_device(work->stream), &stopped, false, l->bad);
}

/* ---- cooperative launches: a host thread for each block ---- */

struct block {
    const struct launch *launch;
    unsigned index;
    pthread_t thread;
    _Atomic bool ended;
};

static void do_block(void *argument) {
    const struct block *b = argument;
    const struct launch *l = b->launch;
    l->kernel->run(l->grid, l->block, b->index, 1, l->slot);
}

static void *block_main(void *argument) {
    struct block *b = argument;
    const struct sim_stopped stopped = sim_guarded(do_block, b);
    sim_raise(sim_stream_device(b->launch->work.stream), &stopped, false, b->launch->bad);
    atomic_store(&b->ended, true);
    return NULL;
}

static void run_cooperative(struct sim_work *work) {
    const struct launch *l = (const struct launch *)work;
    struct block blocks[MOST_BLOCKS];
    unsigned started = 0;
    for (; started < l->grid; started++) {
        blocks[started] = (struct block){.launch = l, .index = started};
        if (pthread_create(&blocks[started].thread, NULL, block_main, &blocks[started]) != 0)
            break;
    }
    if (started < l->grid) /* those that run wait for ones that never come */
        sim_set_sticky(CUDA_ERROR_OPERATING_SYSTEM);
    for (unsigned i = 0; i < started; i++) {
        while (!atomic_load(&blocks[i].ended)) {
            if (sim_sticky() != CUDA_SUCCESS)
                sim_cancel_thread(blocks[i].thread);
            sim_sleep_ms(1);
        }
        pthread_join(blocks[i].thread, NULL);
    }
}

/* ---- the interface ---- */

static CUresult launch(CUfunction f, const unsigned grid[3], const unsigned block[3],
                       unsigned shared, CUstream handle, void **parameters, void **extra,
                       bool cooperative) {
    CUstream stream;
    const CUresult result = sim_stream_resolve(handle, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (!function_ok(f))
        return CUDA_ERROR_INVALID_HANDLE;
    const struct sim_kernel *k = f->kernel;
    for (int i = 0; i < 3; i++)
        if (grid[i] == 0 || block[i] == 0)
            return CUDA_ERROR_INVALID_VALUE;
    if (block[0] > 1024 || grid[0] > 0x7fffffff ||
        (parameters == NULL && k->parameters > 0 && extra == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    if (grid[1] * grid[2] * block[1] * block[2] != 1 || shared != 0 || extra != NULL)
        return CUDA_ERROR_NOT_SUPPORTED; /* the simulator's limit, not the GPU's */
    if (cooperative && grid[0] > MOST_BLOCKS)
        return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    struct launch *l = calloc(1, sizeof *l);
    if (l == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    l->work.run = cooperative ? run_cooperative : run_launch;
    l->work.size = sizeof *l;
    l->kernel = k;
    l->grid = grid[0];
    l->block = block[0];
    for (int i = 0; i < k->parameters; i++) {
        memcpy(&l->slot[i], parameters[i], k->size[i]);
        if (!k->is_pointer[i])
            continue;
        const CUdeviceptr address = l->slot[i];
        void *host = sim_host_address(address);
        if (l->bad == 0 && !sim_is_device(address))
            l->bad = address;
        l->slot[i] = (unsigned long long)(uintptr_t)host;
    }
    return sim_submit(stream, &l->work);
}

SIM_EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                   unsigned grid_z, unsigned block_x, unsigned block_y,
                                   unsigned block_z, unsigned shared, CUstream stream,
                                   void **parameters, void **extra) {
    ENTER(NEED_HEALTH);
    return launch(function, (const unsigned[]){grid_x, grid_y, grid_z},
                  (const unsigned[]){block_x, block_y, block_z}, shared, stream, parameters, extra,
                  false);
}

SIM_EXPORT CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                              unsigned grid_z, unsigned block_x, unsigned block_y,
                                              unsigned block_z, unsigned shared, CUstream stream,
                                              void **parameters) {
    ENTER(NEED_HEALTH);
    return launch(function, (const unsigned[]){grid_x, grid_y, grid_z},
                  (const unsigned[]){block_x, block_y, block_z}, shared, stream, parameters, NULL,
                  true);
}

SIM_EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction function,
                                     void **parameters, void **extra) {
    ENTER(NEED_HEALTH);
    if (c == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (c->numAttrs != 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    return launch(function, (const unsigned[]){c->gridDimX, c->gridDimY, c->gridDimZ},
                  (const unsigned[]){c->blockDimX, c->blockDimY, c->blockDimZ}, c->sharedMemBytes,
                  c->hStream, parameters, extra, false);
}
