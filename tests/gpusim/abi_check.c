/* Prints the layouts and numbers that programs and the driver must agree on, one a line.
 *
 * Built twice (make abi): with cuda_abi.h, and with -DTOOLKIT from the CUDA toolkit's cuda.h. The
 * two outputs must be equal.
 */
#include <stddef.h>
#include <stdio.h>

#ifdef TOOLKIT
#include <cuda.h>

#include "cuda_errors.h"
#define CU_STREAM_LEGACY_HANDLE CU_STREAM_LEGACY
#define CU_STREAM_PER_THREAD_HANDLE CU_STREAM_PER_THREAD
#define CU_GET_PROC_ADDRESS_FOUND CU_GET_PROC_ADDRESS_SUCCESS
#define CU_GET_PROC_ADDRESS_NOT_FOUND CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
#define CU_GET_PROC_ADDRESS_TOO_NEW CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
#else
#include "cuda_abi.h"
#endif

#define NUMBER(name) printf("%s %lld\n", #name, (long long)(name));
#define SIZE(type) printf("sizeof %s %zu\n", #type, sizeof(type));
#define PLACE(type, field)                                                                         \
    printf("%s.%s %zu %zu\n", #type, #field, offsetof(type, field), sizeof(((type *)0)->field));

int main(void) {
#define X(name, number, text) NUMBER(CUDA_##name)
    GPUSIM_ERRORS(X)
#undef X
    SIZE(CUresult)
    SIZE(CUdevice)
    SIZE(CUdeviceptr)
    SIZE(CUmemGenericAllocationHandle)
    SIZE(CUcontext)
    SIZE(CUuuid)
    SIZE(CUmemLocation)
    PLACE(CUmemLocation, type)
    PLACE(CUmemLocation, id)
    SIZE(CUmemAllocationProp)
    PLACE(CUmemAllocationProp, type)
    PLACE(CUmemAllocationProp, requestedHandleTypes)
    PLACE(CUmemAllocationProp, location)
    PLACE(CUmemAllocationProp, win32HandleMetaData)
    PLACE(CUmemAllocationProp, allocFlags.compressionType)
    PLACE(CUmemAllocationProp, allocFlags.usage)
    SIZE(CUmemAccessDesc)
    PLACE(CUmemAccessDesc, location)
    PLACE(CUmemAccessDesc, flags)
    SIZE(CUctxCreateParams)
    PLACE(CUctxCreateParams, execAffinityParams)
    PLACE(CUctxCreateParams, numExecAffinityParams)
    PLACE(CUctxCreateParams, cigParams)
    SIZE(CUlaunchConfig)
    PLACE(CUlaunchConfig, gridDimX)
    PLACE(CUlaunchConfig, blockDimZ)
    PLACE(CUlaunchConfig, sharedMemBytes)
    PLACE(CUlaunchConfig, hStream)
    PLACE(CUlaunchConfig, attrs)
    PLACE(CUlaunchConfig, numAttrs)
    NUMBER(CU_MEM_ALLOCATION_TYPE_PINNED)
    NUMBER(CU_MEM_LOCATION_TYPE_DEVICE)
    NUMBER(CU_MEM_HANDLE_TYPE_NONE)
    NUMBER(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
    NUMBER(CU_MEM_ACCESS_FLAGS_PROT_NONE)
    NUMBER(CU_MEM_ACCESS_FLAGS_PROT_READ)
    NUMBER(CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
    NUMBER(CU_STREAM_NON_BLOCKING)
    NUMBER(CU_STREAM_LEGACY_HANDLE)
    NUMBER(CU_STREAM_PER_THREAD_HANDLE)
    NUMBER(CU_EVENT_DISABLE_TIMING)
    NUMBER(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)
    NUMBER(CU_FUNC_ATTRIBUTE_PTX_VERSION)
    NUMBER(CU_FUNC_ATTRIBUTE_BINARY_VERSION)
    NUMBER(CU_GET_PROC_ADDRESS_FOUND)
    NUMBER(CU_GET_PROC_ADDRESS_NOT_FOUND)
    NUMBER(CU_GET_PROC_ADDRESS_TOO_NEW)
    NUMBER(CU_POINTER_ATTRIBUTE_CONTEXT)
    NUMBER(CU_POINTER_ATTRIBUTE_MEMORY_TYPE)
    NUMBER(CU_POINTER_ATTRIBUTE_DEVICE_POINTER)
    NUMBER(CU_POINTER_ATTRIBUTE_HOST_POINTER)
    NUMBER(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
    NUMBER(CU_POINTER_ATTRIBUTE_RANGE_START_ADDR)
    NUMBER(CU_POINTER_ATTRIBUTE_RANGE_SIZE)
    NUMBER(CU_MEMORYTYPE_HOST)
    NUMBER(CU_MEMORYTYPE_DEVICE)
    return 0;
}
