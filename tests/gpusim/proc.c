/* cuGetProcAddress: a function by its plain name and the CUDA version that the caller was built
 * for.
 *
 * The rows say from which version a name means which function, as in cuda.h's renames. A function
 * that is not written is not here and not exported either: the lookup fails, as it should, instead
 * of giving something that pretends to work.
 */
#include <string.h>

#include "sim.h"

#define ROWS(X)                                                                                    \
    X(cuInit, 2000, cuInit)                                                                        \
    X(cuDriverGetVersion, 2020, cuDriverGetVersion)                                                \
    X(cuGetErrorName, 6000, cuGetErrorName)                                                        \
    X(cuGetErrorString, 6000, cuGetErrorString)                                                    \
    X(cuGetProcAddress, 12000, cuGetProcAddress_v2)                                                \
    X(cuGetProcAddress, 11030, cuGetProcAddress)                                                   \
    X(cuDeviceGet, 2000, cuDeviceGet)                                                              \
    X(cuDeviceGetCount, 2000, cuDeviceGetCount)                                                    \
    X(cuDeviceGetName, 2000, cuDeviceGetName)                                                      \
    X(cuDeviceGetUuid, 11040, cuDeviceGetUuid_v2)                                                  \
    X(cuDeviceGetUuid, 9020, cuDeviceGetUuid)                                                      \
    X(cuDeviceTotalMem, 3020, cuDeviceTotalMem_v2)                                                 \
    X(cuDeviceGetAttribute, 2000, cuDeviceGetAttribute)                                            \
    X(cuDeviceGetPCIBusId, 4010, cuDeviceGetPCIBusId)                                              \
    X(cuDeviceGetByPCIBusId, 4010, cuDeviceGetByPCIBusId)                                          \
    X(cuDeviceComputeCapability, 2000, cuDeviceComputeCapability)                                  \
    X(cuDeviceCanAccessPeer, 4000, cuDeviceCanAccessPeer)                                          \
    X(cuDevicePrimaryCtxRetain, 7000, cuDevicePrimaryCtxRetain)                                    \
    X(cuDevicePrimaryCtxRelease, 11000, cuDevicePrimaryCtxRelease_v2)                              \
    X(cuDevicePrimaryCtxRelease, 7000, cuDevicePrimaryCtxRelease)                                  \
    X(cuDevicePrimaryCtxReset, 11000, cuDevicePrimaryCtxReset_v2)                                  \
    X(cuDevicePrimaryCtxReset, 7000, cuDevicePrimaryCtxReset)                                      \
    X(cuDevicePrimaryCtxSetFlags, 11000, cuDevicePrimaryCtxSetFlags_v2)                            \
    X(cuDevicePrimaryCtxSetFlags, 7000, cuDevicePrimaryCtxSetFlags)                                \
    X(cuDevicePrimaryCtxGetState, 7000, cuDevicePrimaryCtxGetState)                                \
    X(cuCtxCreate, 12050, cuCtxCreate_v4)                                                          \
    X(cuCtxCreate, 11040, cuCtxCreate_v3)                                                          \
    X(cuCtxCreate, 3020, cuCtxCreate_v2)                                                           \
    X(cuCtxDestroy, 4000, cuCtxDestroy_v2)                                                         \
    X(cuCtxPushCurrent, 4000, cuCtxPushCurrent_v2)                                                 \
    X(cuCtxPopCurrent, 4000, cuCtxPopCurrent_v2)                                                   \
    X(cuCtxSetCurrent, 4000, cuCtxSetCurrent)                                                      \
    X(cuCtxGetCurrent, 4000, cuCtxGetCurrent)                                                      \
    X(cuCtxGetDevice, 2000, cuCtxGetDevice)                                                        \
    X(cuCtxGetFlags, 7000, cuCtxGetFlags)                                                          \
    X(cuCtxGetApiVersion, 3020, cuCtxGetApiVersion)                                                \
    X(cuCtxGetStreamPriorityRange, 5050, cuCtxGetStreamPriorityRange)                              \
    X(cuCtxSynchronize, 2000, cuCtxSynchronize)                                                    \
    X(cuModuleLoad, 2000, cuModuleLoad)                                                            \
    X(cuModuleLoadData, 2000, cuModuleLoadData)                                                    \
    X(cuModuleLoadDataEx, 2010, cuModuleLoadDataEx)                                                \
    X(cuModuleUnload, 2000, cuModuleUnload)                                                        \
    X(cuModuleGetFunction, 2000, cuModuleGetFunction)                                              \
    X(cuModuleGetFunctionCount, 12040, cuModuleGetFunctionCount)                                   \
    X(cuFuncGetModule, 11000, cuFuncGetModule)                                                     \
    X(cuFuncGetName, 12030, cuFuncGetName)                                                         \
    X(cuLibraryLoadData, 12000, cuLibraryLoadData)                                                 \
    X(cuLibraryLoadFromFile, 12000, cuLibraryLoadFromFile)                                         \
    X(cuLibraryUnload, 12000, cuLibraryUnload)                                                     \
    X(cuLibraryGetKernel, 12000, cuLibraryGetKernel)                                               \
    X(cuLibraryGetKernelCount, 12040, cuLibraryGetKernelCount)                                     \
    X(cuLibraryEnumerateKernels, 12040, cuLibraryEnumerateKernels)                                 \
    X(cuLibraryGetModule, 12000, cuLibraryGetModule)                                               \
    X(cuKernelGetFunction, 12000, cuKernelGetFunction)                                             \
    X(cuKernelGetLibrary, 12050, cuKernelGetLibrary)                                               \
    X(cuKernelGetName, 12030, cuKernelGetName)                                                     \
    X(cuKernelGetParamInfo, 12040, cuKernelGetParamInfo)                                           \
    X(cuKernelGetAttribute, 12000, cuKernelGetAttribute)                                           \
    X(cuFuncGetParamInfo, 12040, cuFuncGetParamInfo)                                               \
    X(cuFuncGetAttribute, 2020, cuFuncGetAttribute)                                                \
    X(cuLaunchKernel, 4000, cuLaunchKernel)                                                        \
    X(cuLaunchKernelEx, 11060, cuLaunchKernelEx)                                                   \
    X(cuLaunchCooperativeKernel, 9000, cuLaunchCooperativeKernel)                                  \
    X(cuStreamBeginCapture, 10010, cuStreamBeginCapture_v2)                                        \
    X(cuStreamEndCapture, 10000, cuStreamEndCapture)                                               \
    X(cuStreamIsCapturing, 10000, cuStreamIsCapturing)                                             \
    X(cuGraphInstantiateWithFlags, 11040, cuGraphInstantiateWithFlags)                             \
    X(cuGraphLaunch, 10000, cuGraphLaunch)                                                         \
    X(cuGraphDestroy, 10000, cuGraphDestroy)                                                       \
    X(cuGraphExecDestroy, 10000, cuGraphExecDestroy)                                               \
    X(cuLaunchHostFunc, 10000, cuLaunchHostFunc)                                                   \
    X(cuMemGetInfo, 3020, cuMemGetInfo_v2)                                                         \
    X(cuMemAlloc, 3020, cuMemAlloc_v2)                                                             \
    X(cuMemFree, 3020, cuMemFree_v2)                                                               \
    X(cuMemGetAddressRange, 3020, cuMemGetAddressRange_v2)                                         \
    X(cuPointerGetAttribute, 4000, cuPointerGetAttribute)                                          \
    X(cuMemAllocHost, 3020, cuMemAllocHost_v2)                                                     \
    X(cuMemHostAlloc, 2020, cuMemHostAlloc)                                                        \
    X(cuMemFreeHost, 2000, cuMemFreeHost)                                                          \
    X(cuMemHostRegister, 6050, cuMemHostRegister_v2)                                               \
    X(cuMemHostUnregister, 4000, cuMemHostUnregister)                                              \
    X(cuMemHostGetDevicePointer, 3020, cuMemHostGetDevicePointer_v2)                               \
    X(cuMemcpy, 4000, cuMemcpy)                                                                    \
    X(cuMemcpyAsync, 4000, cuMemcpyAsync)                                                          \
    X(cuMemcpyHtoD, 3020, cuMemcpyHtoD_v2)                                                         \
    X(cuMemcpyDtoH, 3020, cuMemcpyDtoH_v2)                                                         \
    X(cuMemcpyDtoD, 3020, cuMemcpyDtoD_v2)                                                         \
    X(cuMemcpyHtoDAsync, 3020, cuMemcpyHtoDAsync_v2)                                               \
    X(cuMemcpyDtoHAsync, 3020, cuMemcpyDtoHAsync_v2)                                               \
    X(cuMemcpyDtoDAsync, 3020, cuMemcpyDtoDAsync_v2)                                               \
    X(cuMemsetD8, 3020, cuMemsetD8_v2)                                                             \
    X(cuMemsetD16, 3020, cuMemsetD16_v2)                                                           \
    X(cuMemsetD32, 3020, cuMemsetD32_v2)                                                           \
    X(cuMemsetD8Async, 3020, cuMemsetD8Async)                                                      \
    X(cuMemsetD16Async, 3020, cuMemsetD16Async)                                                    \
    X(cuMemsetD32Async, 3020, cuMemsetD32Async)                                                    \
    X(cuMemGetAllocationGranularity, 10020, cuMemGetAllocationGranularity)                         \
    X(cuMemCreate, 10020, cuMemCreate)                                                             \
    X(cuMemRelease, 10020, cuMemRelease)                                                           \
    X(cuMemRetainAllocationHandle, 11000, cuMemRetainAllocationHandle)                             \
    X(cuMemGetAllocationPropertiesFromHandle, 10020, cuMemGetAllocationPropertiesFromHandle)       \
    X(cuMemExportToShareableHandle, 10020, cuMemExportToShareableHandle)                           \
    X(cuMemImportFromShareableHandle, 10020, cuMemImportFromShareableHandle)                       \
    X(cuMemAddressReserve, 10020, cuMemAddressReserve)                                             \
    X(cuMemAddressFree, 10020, cuMemAddressFree)                                                   \
    X(cuMemMap, 10020, cuMemMap)                                                                   \
    X(cuMemUnmap, 10020, cuMemUnmap)                                                               \
    X(cuMemSetAccess, 10020, cuMemSetAccess)                                                       \
    X(cuMemGetAccess, 10020, cuMemGetAccess)                                                       \
    X(cuStreamCreate, 2000, cuStreamCreate)                                                        \
    X(cuStreamCreateWithPriority, 5050, cuStreamCreateWithPriority)                                \
    X(cuStreamDestroy, 4000, cuStreamDestroy_v2)                                                   \
    X(cuStreamSynchronize, 2000, cuStreamSynchronize)                                              \
    X(cuStreamQuery, 2000, cuStreamQuery)                                                          \
    X(cuStreamGetFlags, 5050, cuStreamGetFlags)                                                    \
    X(cuStreamGetPriority, 5050, cuStreamGetPriority)                                              \
    X(cuStreamGetCtx, 9020, cuStreamGetCtx)                                                        \
    X(cuStreamWaitEvent, 3020, cuStreamWaitEvent)                                                  \
    X(cuEventCreate, 2000, cuEventCreate)                                                          \
    X(cuEventDestroy, 4000, cuEventDestroy_v2)                                                     \
    X(cuEventRecord, 2000, cuEventRecord)                                                          \
    X(cuEventQuery, 2000, cuEventQuery)                                                            \
    X(cuEventSynchronize, 2000, cuEventSynchronize)                                                \
    X(cuEventElapsedTime, 12080, cuEventElapsedTime_v2)                                            \
    X(cuEventElapsedTime, 2000, cuEventElapsedTime)

/* The older names that the real library exports for the same functions, beside the _v2 ones. */
#define SAME_AS(old, parameters, call)                                                             \
    SIM_EXPORT CUresult old parameters;                                                            \
    SIM_EXPORT CUresult old parameters {                                                           \
        return call;                                                                               \
    }

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice), cuDevicePrimaryCtxReset_v2(CUdevice),
    cuDevicePrimaryCtxSetFlags_v2(CUdevice, unsigned);
SIM_EXPORT CUresult cuGetProcAddress(const char *symbol, void **function, int version,
                                     uint64_t flags);
SIM_EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version,
                                        uint64_t flags, int *status);

SAME_AS(cuDevicePrimaryCtxRelease, (CUdevice device), cuDevicePrimaryCtxRelease_v2(device))
SAME_AS(cuDevicePrimaryCtxReset, (CUdevice device), cuDevicePrimaryCtxReset_v2(device))
SAME_AS(cuDevicePrimaryCtxSetFlags, (CUdevice device, unsigned flags),
        cuDevicePrimaryCtxSetFlags_v2(device, flags))

/* Declared without types: only their addresses are wanted here. */
#define X(name, since, function)                                                                   \
    extern char address_of_##function __asm__(#function) __attribute__((visibility("default")));
ROWS(X)
#undef X

static const struct {
    const char *name;
    int since;
    void *function;
} rows[] = {
#define X(name, since, function) {#name, since, &address_of_##function},
    ROWS(X)
#undef X
};

SIM_EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version,
                                        uint64_t flags, int *status) {
    ENTER(NEED_NOTHING);
    bool known = false;
    int best = -1;
    (void)flags; /* per-thread default streams are the null stream here */
    if (symbol == NULL || function == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *function = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].name, symbol) != 0)
            continue;
        known = true;
        if (rows[i].since <= version && rows[i].since > best) {
            best = rows[i].since;
            *function = rows[i].function;
        }
    }
    if (status != NULL)
        *status = *function != NULL ? CU_GET_PROC_ADDRESS_FOUND
                  : known           ? CU_GET_PROC_ADDRESS_TOO_NEW
                                    : CU_GET_PROC_ADDRESS_NOT_FOUND;
    return *function != NULL || status != NULL ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

SIM_EXPORT CUresult cuGetProcAddress(const char *symbol, void **function, int version,
                                     uint64_t flags) {
    const CUresult result = cuGetProcAddress_v2(symbol, function, version, flags, NULL);
    return result;
}
