/* A C program on the simulated driver, for the sanitizers (make asan): every part once, threads,
 * and faults to leave kernels by.
 *
 *     selftest <heat.ptx> <faults.ptx>
 *
 * Needs SIMGPU_DIR. Prints `ok` and ends with 0, or names the line that failed and ends with 1.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda_abi.h"

#define THREADS 4
#define ROUNDS 200

CUresult cuInit(unsigned), cuCtxCreate_v2(CUcontext *, unsigned, CUdevice),
    cuCtxDestroy_v2(CUcontext), cuCtxSynchronize(void);
CUresult cuCtxSetCurrent(CUcontext), cuModuleLoad(CUmodule *, const char *),
    cuModuleUnload(CUmodule);
CUresult cuModuleGetFunction(CUfunction *, CUmodule, const char *);
CUresult cuLaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                        unsigned, CUstream, void **, void **);
CUresult cuMemCreate(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *,
                     unsigned long long);
CUresult cuMemRelease(CUmemGenericAllocationHandle),
    cuMemAddressReserve(CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long);
CUresult cuMemAddressFree(CUdeviceptr, size_t), cuMemUnmap(CUdeviceptr, size_t);
CUresult cuMemMap(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
CUresult cuMemSetAccess(CUdeviceptr, size_t, const CUmemAccessDesc *, size_t);
CUresult cuMemExportToShareableHandle(void *, CUmemGenericAllocationHandle, int,
                                      unsigned long long);
CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *, void *, int);
CUresult cuMemAlloc_v2(CUdeviceptr *, size_t), cuMemFree_v2(CUdeviceptr),
    cuMemcpyHtoD_v2(CUdeviceptr, const void *, size_t);
CUresult cuMemcpyDtoH_v2(void *, CUdeviceptr, size_t),
    cuMemcpyHtoDAsync_v2(CUdeviceptr, const void *, size_t, CUstream);
CUresult cuMemAllocHost_v2(void **, size_t), cuMemFreeHost(void *),
    cuMemGetInfo_v2(size_t *, size_t *);
CUresult cuStreamCreate(CUstream *, unsigned), cuStreamDestroy_v2(CUstream),
    cuStreamSynchronize(CUstream);
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned), cuEventCreate(CUevent *, unsigned),
    cuEventDestroy_v2(CUevent);
CUresult cuEventRecord(CUevent, CUstream), cuEventSynchronize(CUevent),
    cuEventElapsedTime(float *, CUevent, CUevent);

static void check(int good, const char *what, int line) {
    if (good)
        return;
    fprintf(stderr, "selftest.c:%d: %s\n", line, what);
    exit(1);
}

#define CHECK(condition) check((condition), #condition, __LINE__)
#define OK(call) check((call) == CUDA_SUCCESS, #call, __LINE__)

static CUcontext context;
static CUfunction heat_init, heat_step;

static void memory_round_trip(void) {
    const CUmemAllocationProp prop = {
        .type = 1, .requestedHandleTypes = 1, .location = {.type = 1, .id = 0}};
    const CUmemAccessDesc both = {.location = {.type = 1, .id = 0}, .flags = 3};
    const size_t size = 2u << 20;
    CUmemGenericAllocationHandle handle, twin;
    CUdeviceptr one, two;
    char text[16];
    int fd;
    OK(cuMemCreate(&handle, size, &prop, 0));
    OK(cuMemExportToShareableHandle(&fd, handle, 1, 0));
    OK(cuMemImportFromShareableHandle(&twin, (void *)(intptr_t)fd, 1));
    close(fd);
    OK(cuMemAddressReserve(&one, size, 0, 0, 0));
    OK(cuMemAddressReserve(&two, size, 0, 0, 0));
    OK(cuMemMap(one, size, 0, handle, 0));
    OK(cuMemMap(two, size, 0, twin, 0));
    OK(cuMemSetAccess(one, size, &both, 1));
    OK(cuMemSetAccess(two, size, &both, 1));
    OK(cuMemRelease(handle));
    OK(cuMemcpyHtoD_v2(one + 100, "the same memory", 16));
    OK(cuMemcpyDtoH_v2(text, two + 100, 16));
    CHECK(strcmp(text, "the same memory") == 0);
    OK(cuMemUnmap(one, size));
    OK(cuMemUnmap(two, size));
    OK(cuMemRelease(twin));
    OK(cuMemAddressFree(one, size));
    OK(cuMemAddressFree(two, size));
}

static void launch(CUfunction function, unsigned threads, CUstream stream, void **parameters) {
    OK(cuLaunchKernel(function, (threads + 63) / 64, 1, 1, 64, 1, 1, 0, stream, parameters, NULL));
}

static void *solve(void *result) {
    int ny = 16, nx = 24;
    double k = 0.25, *host;
    CUdeviceptr now, next;
    CUstream stream;
    CUevent begin, end;
    float ms;
    const size_t size = (size_t)(ny * nx) * sizeof(double);
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, 1));
    OK(cuMemAlloc_v2(&now, size));
    OK(cuMemAlloc_v2(&next, size));
    OK(cuMemAllocHost_v2((void **)&host, size));
    OK(cuEventCreate(&begin, 0));
    OK(cuEventCreate(&end, 0));
    OK(cuEventRecord(begin, stream));
    launch(heat_init, (unsigned)(ny * nx), stream, (void *[]){&now, &ny, &nx});
    for (int i = 0; i < ROUNDS; i++) {
        launch(heat_step, (unsigned)(ny * nx), stream, (void *[]){&next, &now, &ny, &nx, &k});
        const CUdeviceptr swap = now;
        now = next;
        next = swap;
    }
    OK(cuEventRecord(end, stream));
    OK(cuStreamWaitEvent(stream, end, 0));
    OK(cuEventSynchronize(end));
    OK(cuEventElapsedTime(&ms, begin, end));
    CHECK(ms > 0);
    OK(cuMemcpyHtoDAsync_v2(next, result, sizeof(double),
                            stream)); /* staged: the source may go at once */
    OK(cuMemcpyDtoH_v2(host, now, size));
    memcpy(result, &host[nx + 1], sizeof(double));
    OK(cuEventDestroy_v2(begin));
    OK(cuEventDestroy_v2(end));
    OK(cuStreamDestroy_v2(stream));
    OK(cuMemFreeHost(host));
    OK(cuMemFree_v2(now));
    OK(cuMemFree_v2(next));
    return NULL;
}

static void solve_on_threads(void) {
    pthread_t thread[THREADS];
    double result[THREADS] = {0};
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, solve, &result[i]) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(result[i] > 0 && memcmp(&result[i], &result[0], sizeof result[0]) == 0);
}

/* In a child that starts afresh, since a fault is for ever: while one stream spins, another faults.
 */
static int faulting_child(const char *faults, const char *kernel, CUresult expected) {
    CUmodule module;
    CUfunction spin, bad;
    CUstream one, two;
    CUdeviceptr flag;
    OK(cuInit(0));
    OK(cuCtxCreate_v2(&context, 0, 0));
    OK(cuModuleLoad(&module, faults));
    OK(cuModuleGetFunction(&spin, module, "spin"));
    OK(cuModuleGetFunction(&bad, module, kernel));
    OK(cuMemAlloc_v2(&flag, 64));
    OK(cuStreamCreate(&one, 1));
    OK(cuStreamCreate(&two, 1));
    const long long nothing[8] = {0};
    OK(cuMemcpyHtoD_v2(flag, nothing, sizeof nothing));
    OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, one, (void *[]){&flag}, NULL));
    CUdeviceptr nowhere = 0x1000, zero = 0; /* zero: assert_positive's int */
    double value = 1.0;
    CUdeviceptr *first = strcmp(kernel, "write_address") == 0     ? &nowhere
                         : strcmp(kernel, "assert_positive") == 0 ? &zero
                                                                  : &flag;
    OK(cuLaunchKernel(bad, 1, 1, 1, 1, 1, 1, 0, two, (void *[]){first, &value}, NULL));
    CHECK(cuCtxSynchronize() == expected);
    CHECK(cuMemFree_v2(flag) == expected);
    return 0;
}

int main(int n, char **arguments) {
    static const struct {
        const char *kernel;
        CUresult code;
    } faults[] = {{"write_address", 700},
                  {"misaligned", 716},
                  {"illegal_instruction", 715},
                  {"trap", 719},
                  {"assert_positive", 710}};
    CUmodule module;
    size_t free_bytes, total;
    CHECK(n == 3);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        int status;
        const pid_t child = fork();
        if (child == 0)
            exit(faulting_child(arguments[2], faults[i].kernel, faults[i].code));
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    OK(cuInit(0));
    OK(cuCtxCreate_v2(&context, 0, 0));
    OK(cuModuleLoad(&module, arguments[1]));
    OK(cuModuleGetFunction(&heat_init, module, "heat_init"));
    OK(cuModuleGetFunction(&heat_step, module, "heat_step"));
    for (int i = 0; i < 20; i++)
        memory_round_trip();
    solve_on_threads();
    OK(cuMemGetInfo_v2(&free_bytes, &total));
    CHECK(free_bytes == total);
    OK(cuModuleUnload(module));
    OK(cuCtxDestroy_v2(context));
    const pid_t child = fork();
    if (child == 0)
        _exit(cuInit(0) == CUDA_ERROR_NOT_INITIALIZED ? 0 : 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    puts("ok");
    return 0;
}
