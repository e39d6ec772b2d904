/* Modules: a PTX text names kernels; their code is the CPU table that was compiled
 * from the same source.
 *
 * Loading checks that every kernel of the text is in the table with parameters of the same number
 * and size: PTX that has gone stale, or that is nobody's here, is refused with
 * CUDA_ERROR_INVALID_PTX and a line that says which kernel.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "module.h"

static struct CUmod_st *modules; /* everything that was ever loaded; under sim.queue_lock */

/* ---- reading PTX ---- */

static const struct sim_kernel *kernel_named(const char *name, size_t length) {
    for (int i = 0; i < sim_n_kernels; i++)
        if (strlen(sim_kernels[i].name) == length && memcmp(sim_kernels[i].name, name, length) == 0)
            return &sim_kernels[i];
    return NULL;
}

/* Compares `.param .u64 name, .param .f64 name)` with the table; `at` stands after the opening
 * bracket. */
static bool same_parameters(const struct sim_kernel *kernel, const char *at) {
    const char *end = strchr(at, ')');
    int n = 0;
    for (; end != NULL; n++) {
        const char *parameter = strstr(at, ".param");
        if (parameter == NULL || parameter > end)
            break;
        at = parameter + strlen(".param");
        const char *type = strchr(at, '.'); /* .u64 .f64 .b32 … */
        if (type == NULL || n == kernel->parameters || atoi(type + 2) != kernel->size[n] * 8)
            return false;
    }
    return end != NULL && n == kernel->parameters;
}

static CUresult parse(CUmodule module, const char *text) {
    static const char entry[] = ".entry";
    const char *at = strstr(text, ".version");
    if (at == NULL || strstr(text, ".target") == NULL)
        return CUDA_ERROR_INVALID_IMAGE; /* a cubin or something else: only PTX is simulated */
    while ((at = strstr(at, entry)) != NULL) {
        at += strlen(entry);
        at += strspn(at, " \t\n");
        const size_t length = strcspn(at, " \t\n({");
        const struct sim_kernel *kernel = kernel_named(at, length);
        if (kernel == NULL) {
            sim_say("simgpu: kernel: not compiled into the simulator: %.*s", (int)length, at);
            return CUDA_ERROR_INVALID_PTX;
        }
        at += length + strspn(at + length, " \t\n");
        if (*at != '(' ? kernel->parameters != 0 : !same_parameters(kernel, at + 1)) {
            sim_say("simgpu: kernel: its PTX has other parameters than its source (make ptx): %s",
                    kernel->name);
            return CUDA_ERROR_INVALID_PTX;
        }
        if (module->n == MODULE_KERNELS)
            return CUDA_ERROR_OUT_OF_MEMORY;
        module->function[module->n++] = (struct CUfunc_st){.module = module, .kernel = kernel};
    }
    return CUDA_SUCCESS;
}

CUresult module_new(CUmodule *module, const char *text, bool library) {
    if (module == NULL || text == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (!library && sim_current() == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    struct CUmod_st *m = calloc(1, sizeof *m);
    if (m == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = parse(m, text);
    if (result != CUDA_SUCCESS) {
        free(m);
        return result;
    }
    m->alive = true;
    m->library = library;
    pthread_mutex_lock(&sim.queue_lock);
    m->next = modules;
    modules = m;
    pthread_mutex_unlock(&sim.queue_lock);
    *module = m;
    return CUDA_SUCCESS;
}

bool module_ok(CUmodule module, bool library) {
    bool found = false;
    pthread_mutex_lock(&sim.queue_lock);
    for (struct CUmod_st *m = modules; m != NULL; m = m->next)
        found = found || (m == module && m->alive && (library || !m->library));
    pthread_mutex_unlock(&sim.queue_lock);
    return found;
}

bool function_ok(CUfunction function) {
    bool found = false;
    pthread_mutex_lock(&sim.queue_lock);
    for (struct CUmod_st *m = modules; m != NULL; m = m->next)
        found = found || (m->alive && (uintptr_t)function >= (uintptr_t)m->function &&
                          function < m->function + m->n);
    pthread_mutex_unlock(&sim.queue_lock);
    return found;
}

CUresult module_from_file(CUmodule *module, const char *path, bool library) {
    FILE *file = path == NULL ? NULL : fopen(path, "re");
    if (file == NULL)
        return CUDA_ERROR_FILE_NOT_FOUND;
    const size_t most = 4u << 20;
    char *text = malloc(most + 1);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (text != NULL) {
        text[fread(text, 1, most, file)] = '\0';
        result = module_new(module, text, library);
    }
    fclose(file);
    free(text);
    return result;
}

CUfunction module_find(CUmodule module, const char *name) {
    for (int i = 0; i < module->n; i++)
        if (strcmp(module->function[i].kernel->name, name) == 0)
            return &module->function[i];
    return NULL;
}

void module_end(CUmodule module) {
    pthread_mutex_lock(&sim.queue_lock);
    module->alive = false;
    pthread_mutex_unlock(&sim.queue_lock);
}

SIM_EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    ENTER(NEED_HEALTH);
    return module_new(module, image, false);
}

/* JIT options have nothing to act on here. */
SIM_EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned n,
                                       int *options, void **values) {
    ENTER(NEED_HEALTH);
    (void)options, (void)values;
    return n > 64 ? CUDA_ERROR_INVALID_VALUE : module_new(module, image, false);
}

SIM_EXPORT CUresult cuModuleLoad(CUmodule *module, const char *path) {
    ENTER(NEED_HEALTH);
    return module_from_file(module, path, false);
}

SIM_EXPORT CUresult cuModuleUnload(CUmodule module) {
    ENTER(NEED_HEALTH);
    if (!module_ok(module, false))
        return CUDA_ERROR_INVALID_HANDLE;
    module_end(module);
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    ENTER(NEED_HEALTH);
    if (function == NULL || name == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (!module_ok(module, true))
        return CUDA_ERROR_INVALID_HANDLE;
    const CUfunction found = module_find(module, name);
    if (found == NULL)
        return CUDA_ERROR_NOT_FOUND;
    *function = found;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuModuleGetFunctionCount(unsigned *count, CUmodule module) {
    ENTER(NEED_HEALTH);
    if (count == NULL || !module_ok(module, true))
        return count == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    *count = (unsigned)module->n;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuFuncGetModule(CUmodule *module, CUfunction function) {
    ENTER(NEED_HEALTH);
    if (module == NULL || !function_ok(function))
        return module == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    *module = function->module;
    return CUDA_SUCCESS;
}

SIM_EXPORT CUresult cuFuncGetName(const char **name, CUfunction function) {
    ENTER(NEED_HEALTH);
    if (name == NULL || !function_ok(function))
        return name == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    *name = function->kernel->name;
    return CUDA_SUCCESS;
}
