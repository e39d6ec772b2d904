/* What CUDA C++ has and C++ has not, so that g++ compiles the project's .cu files unchanged: one
 * thread after the other, but for the blocks of a cooperative launch (launch.c).
 *
 * assert is the C library's; what it calls when it fails is in kernels.cpp.
 * Limits: one-dimensional launches; no shared memory, no __syncthreads, no atomics, no device
 * printf.
 */
#ifndef GPUSIM_CPUSHIM_H
#define GPUSIM_CPUSHIM_H

#include <stdint.h>

#include "kernel_table.h"

#define __global__
#define __device__

struct sim_dim {
    unsigned x, y, z;
};

static thread_local sim_dim threadIdx, blockIdx, blockDim, gridDim;

/* The numbers of enum sim_stop in sim.h. */
enum {
    SIM_STOP_MISALIGNED = 2,
    SIM_STOP_ILLEGAL = 3,
    SIM_STOP_TRAP = 4,
    SIM_STOP_ASSERT = 5,
    SIM_STOP_RANGE = 6,
    SIM_STOP_STACK = 7,
    SIM_STOP_BRANCH = 8
};

#define __trap() sim_kernel_stop(SIM_STOP_TRAP, nullptr, 0)
#define __threadfence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define simulated_illegal_instruction() __builtin_trap() /* ud2: the CPU's own */
/* What a CPU would do about these would hit the host's program, not the kernel: told, not done. */
#define simulated_out_of_range() sim_kernel_stop(SIM_STOP_RANGE, nullptr, 1)
#define simulated_stack_overflow() sim_kernel_stop(SIM_STOP_STACK, nullptr, 0)
#define simulated_bad_branch() sim_kernel_stop(SIM_STOP_BRANCH, nullptr, 0)

#endif
