/* The project's kernels, compiled for the CPU: the table that cuModuleLoadData and cuLaunchKernel
 * of the simulated driver use.
 *
 * kernel_sources.inc includes the .cu files and kernel_rows.inc names their kernels; both are made
 * by the Makefile from the sources themselves. Sizes and kinds of the parameters come from the
 * functions' types. Built with -fsanitize=alignment and without the sanitizer's library: the
 * compiler's check of each access calls the two functions below, which is how a misaligned access
 * is found on a CPU that would allow it.
 */
#include "cpushim.h"

#include <cassert>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <unistd.h>
#include <utility>

#include "kernel_sources.inc"

namespace {

template <typename T> T unpack(const unsigned long long *slot) {
    static_assert(sizeof(T) <= sizeof *slot, "parameters are numbers and pointers");
    T value;
    std::memcpy(&value, slot, sizeof value);
    return value;
}

template <auto function, typename... A, std::size_t... I>
void run_some(unsigned grid, unsigned block, unsigned first, unsigned count,
              const unsigned long long *slots, void (*)(A...), std::index_sequence<I...>) {
    (void)slots;
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    for (unsigned b = first; b < first + count; b++) {
        blockIdx.x = b;
        for (unsigned t = 0; t < block; t++) {
            threadIdx.x = t;
            function(unpack<A>(slots + I)...);
        }
    }
}

template <auto function> struct row;

template <typename... A, void (*function)(A...)> struct row<function> {
    static_assert(sizeof...(A) <= SIM_MAX_PARAMETERS, "a kernel has too many parameters");
    static void run(unsigned grid, unsigned block, unsigned first, unsigned count,
                    const unsigned long long *slots) {
        run_some<function>(grid, block, first, count, slots, function,
                           std::index_sequence_for<A...>{});
    }
    static constexpr sim_kernel make(const char *name) {
        return {name, sizeof...(A), {sizeof(A)...}, {std::is_pointer_v<A>...}, run};
    }
};

} // namespace

#define KERNEL(name) row<name>::make(#name),
extern "C" const sim_kernel sim_kernels[] = {
#include "kernel_rows.inc"
};
extern "C" const int sim_n_kernels = sizeof sim_kernels / sizeof sim_kernels[0];

/* What a failed assert calls: instead of the C library's, which would end the process. CUDA's line
 * on stderr, then the stop. */
extern "C" __attribute__((visibility("hidden"))) void
__assert_fail(const char *text, const char *file, unsigned line, const char *function) noexcept {
    char message[512];
    const int n =
        std::snprintf(message, sizeof message,
                      "%s:%u: %s: block: [%u,0,0], thread: [%u,0,0] Assertion `%s` failed.\n", file,
                      line, function, blockIdx.x, threadIdx.x, text);
    if (n > 0 && write(STDERR_FILENO, message, std::strlen(message)) < 0) {
        /* nobody to tell */
    }
    sim_kernel_stop(SIM_STOP_ASSERT, nullptr, 0);
}

/* The compiler's alignment check (its own names and layout). */
struct type_mismatch {
    const char *file;
    std::uint32_t line, column;
    const void *type;
    unsigned char log_alignment;
    unsigned char access; /* 0 load, 1 store */
};

extern "C" void __ubsan_handle_type_mismatch_v1(type_mismatch *data, std::uintptr_t address) {
    sim_kernel_stop(SIM_STOP_MISALIGNED, reinterpret_cast<const void *>(address),
                    data->access == 1);
}

extern "C" void __ubsan_handle_type_mismatch_v1_abort(type_mismatch *data, std::uintptr_t address) {
    __ubsan_handle_type_mismatch_v1(data, address);
}
