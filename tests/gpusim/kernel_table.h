/* Between the C side of the simulated driver and the kernels, which are C++: one row for each
 * kernel compiled in. */
#ifndef GPUSIM_KERNEL_TABLE_H
#define GPUSIM_KERNEL_TABLE_H

#ifdef __cplusplus
extern "C" {
#endif

#define SIM_MAX_PARAMETERS 16

struct sim_kernel {
    const char *name;
    int parameters;
    unsigned char size[SIM_MAX_PARAMETERS];       /* bytes */
    unsigned char is_pointer[SIM_MAX_PARAMETERS]; /* 1: a device address */
    /* Runs `count` of the grid's blocks from `first` on, of `block` threads each, one after the
     * other. `slots` holds one 8-byte slot for each parameter, pointers as host pointers. */
    void (*run)(unsigned grid, unsigned block, unsigned first, unsigned count,
                const unsigned long long *slots);
};

extern const struct sim_kernel sim_kernels[];
extern const int sim_n_kernels;

/* Called by a kernel that cannot go on; do not return. */
__attribute__((noreturn)) void sim_kernel_stop(int kind, const void *address, int write);

#ifdef __cplusplus
}
#endif
#endif
