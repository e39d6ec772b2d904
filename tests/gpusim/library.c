/* Libraries: kernels without a context, as cuda.core and newer programs load them.
 *
 * A library is a module that belongs to no context, and a kernel is its function: the handles are
 * the same ones, so a kernel can be launched as it is. What PTX says of a kernel's needs
 * (registers, shared memory) does not exist here; the attributes that are not simulated are
 * refused.
 */
#include <stdlib.h>

#include "module.h"

SIM_EXPORT CUresult cuLibraryLoadData(CUlibrary *library, const void *code, int *jit_options,
                                      void **jit_values, unsigned n_jit, int *options,
                                      void **values, unsigned n_options) {
    ENTER(NEED_HEALTH);
    (void)jit_options, (void)jit_values, (void)options, (void)values; /* nothing to act on here */
    return n_jit > 64 || n_options > 64 ? CUDA_ERROR_INVALID_VALUE
                                        : module_new((CUmodule *)library, code, true);
}

SIM_EXPORT CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *path, int *jit_options,
                                          void **jit_values, unsigned n_jit, int *options,
                                          void **values, unsigned n_options) {
    ENTER(NEED_HEALTH);
    (void)jit_options, (void)jit_values, (void)options, (void)values;
    return n_jit > 64 || n_options > 64 ? CUDA_ERROR_INVALID_VALUE
                                        : module_from_file((CUmodule *)library, path, true);
}

static bool library_ok(CUlibrary library) {
    return module_ok((CUmodule)library, true) && ((CUmodule)library)->library;
}

SIM_EXPORT CUresult cuLibraryUnload(CUlibrary library) {
    ENTER(NEED_HEALTH);
    if (!library_ok(library))
        return CUDA_ERROR_INVALID_HANDLE;
    module_end((CUmodule)library);
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name) {
    ENTER(NEED_HEALTH);
    if (kernel == NULL || name == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (!library_ok(library))
        return CUDA_ERROR_INVALID_HANDLE;
    const CUfunction found = module_find((CUmodule)library, name);
    if (found == NULL)
        return CUDA_ERROR_NOT_FOUND;
    *kernel = (CUkernel)found;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuLibraryGetKernelCount(unsigned *count, CUlibrary library) {
    ENTER(NEED_HEALTH);
    if (count == NULL || !library_ok(library))
        return count == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    *count = (unsigned)((CUmodule)library)->n;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned n, CUlibrary library) {
    ENTER(NEED_HEALTH);
    if (kernels == NULL || !library_ok(library))
        return kernels == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    CUmodule module = (CUmodule)library;
    for (unsigned i = 0; i < n && i < (unsigned)module->n; i++)
        kernels[i] = (CUkernel)&module->function[i];
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuLibraryGetModule(CUmodule *module, CUlibrary library) {
    ENTER(NEED_HEALTH);
    if (module == NULL || !library_ok(library))
        return module == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    if (sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    *module = (CUmodule)library;
    return CUDA_SUCCESS;
}

static bool kernel_ok(CUkernel kernel) {
    return function_ok((CUfunction)kernel) && ((CUfunction)kernel)->module->library;
}

SIM_EXPORT CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel) {
    ENTER(NEED_HEALTH);
    if (function == NULL || !kernel_ok(kernel))
        return function == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    if (sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    *function = (CUfunction)kernel;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuKernelGetLibrary(CUlibrary *library, CUkernel kernel) {
    ENTER(NEED_HEALTH);
    if (library == NULL || !kernel_ok(kernel))
        return library == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    *library = (CUlibrary)((CUfunction)kernel)->module;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuKernelGetName(const char **name, CUkernel kernel) {
    ENTER(NEED_HEALTH);
    if (name == NULL || !kernel_ok(kernel))
        return name == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    *name = ((CUfunction)kernel)->kernel->name;
    return CUDA_SUCCESS;
}

/* Where a parameter lies among the others: each at a multiple of its size. `size` may be NULL. */
static CUresult parameter(const struct sim_kernel *kernel, size_t index, size_t *offset,
                          size_t *size) {
    size_t at = 0;
    if (offset == NULL || index >= (size_t)kernel->parameters)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i <= index; i++) {
        const size_t own = kernel->size[i];
        at = (at + own - 1) / own * own;
        *offset = at;
        at += own;
    }
    if (size != NULL)
        *size = kernel->size[index];
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t *offset,
                                         size_t *size) {
    ENTER(NEED_HEALTH);
    return kernel_ok(kernel) ? parameter(((CUfunction)kernel)->kernel, index, offset, size)
                             : CUDA_ERROR_INVALID_HANDLE;
}

SIM_EXPORT CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t *offset,
                                       size_t *size) {
    ENTER(NEED_HEALTH);
    return function_ok(function) ? parameter(function->kernel, index, offset, size)
                                 : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult attribute(int *value, int which) {
    if (value == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    switch (which) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value = 1024;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
        *value = 75;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        *value = 90;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_NOT_SUPPORTED; /* the simulator's limit, not the GPU's */
    }
}

SIM_EXPORT CUresult cuKernelGetAttribute(int *value, int which, CUkernel kernel, CUdevice device) {
    ENTER(NEED_HEALTH);
    if (!kernel_ok(kernel))
        return CUDA_ERROR_INVALID_HANDLE;
    return sim_device_ok(device) ? attribute(value, which) : CUDA_ERROR_INVALID_DEVICE;
}

SIM_EXPORT CUresult cuFuncGetAttribute(int *value, int which, CUfunction function) {
    ENTER(NEED_HEALTH);
    return function_ok(function) ? attribute(value, which) : CUDA_ERROR_INVALID_HANDLE;
}
