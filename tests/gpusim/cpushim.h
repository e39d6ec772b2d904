/* What CUDA C++ has and C++ has not, so that g++ compiles the project's .cu files unchanged: one
 * thread after the other.
 *
 * Limits: one-dimensional launches; no shared memory, no __syncthreads, no atomics, no device
 * printf.
 */
#ifndef GPUSIM_CPUSHIM_H
#define GPUSIM_CPUSHIM_H

#include <assert.h> /* first, so that the .cu files' own include cannot bring the host's assert back */
#include <stdint.h>

#include "kernel_table.h"

#define __global__
#define __device__

struct sim_dim {
    unsigned x, y, z;
};

static thread_local sim_dim threadIdx, blockIdx, blockDim, gridDim;

/* The numbers of enum sim_stop in sim.h. */
enum { SIM_STOP_MISALIGNED = 2, SIM_STOP_ILLEGAL = 3, SIM_STOP_TRAP = 4, SIM_STOP_ASSERT = 5 };

extern "C" __attribute__((noreturn)) void sim_assert_failed(const char *text, const char *file,
                                                            unsigned line, const char *function,
                                                            unsigned block, unsigned thread);

#define __trap() sim_kernel_stop(SIM_STOP_TRAP, nullptr, 0)
#define simulated_illegal_instruction() __builtin_trap() /* ud2: the CPU's own */

#undef assert
#define assert(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            sim_assert_failed(#condition, __FILE__, __LINE__, __func__, blockIdx.x, threadIdx.x);  \
    } while (0)

#endif
