/* Kernels that were loaded, as module.c and library.c share them. */
#ifndef GPUSIM_MODULE_H
#define GPUSIM_MODULE_H

#include "sim.h"

#define MODULE_KERNELS 64

struct CUfunc_st {
    CUmodule module;
    const struct sim_kernel *kernel;
};

/* A module, or a library: the latter needs no context, and its kernels are its functions. */
struct CUmod_st {
    bool alive, library;
    int n;
    struct CUfunc_st function[MODULE_KERNELS];
    struct CUmod_st *next;
};

/* Reads PTX and puts it on the list of what is loaded. */
CUresult module_new(CUmodule *module, const char *text, bool library);
/* Reads a file of PTX and does the same. */
CUresult module_from_file(CUmodule *module, const char *path, bool library);
/* Is it loaded, and of that sort? */
bool module_ok(CUmodule module, bool library);
bool function_ok(CUfunction function);
/* Its function of that name, or NULL. */
CUfunction module_find(CUmodule module, const char *name);
void module_end(CUmodule module);

#endif
