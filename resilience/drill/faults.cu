// Kernels that go wrong on purpose, one for each kind of GPU fault, and a few that do honest work.
//
// What the driver makes of each is in the comment beside it. Launches are one-dimensional; the
// kernels that fault are meant to be launched with one thread. Compile: nvcc -ptx -arch=sm_75
// -fmad=false faults.cu

#include <assert.h>

static __device__ long long thread_index() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

static __device__ long long thread_count() {
    return (long long)gridDim.x * blockDim.x;
}

// Load from any address. Unmapped: error 700, Xid 31 with ACCESS_TYPE_VIRT_READ.
extern "C" __global__ void read_address(double *out, const volatile double *from) {
    *out = *from;
}

// Store to any address. Unmapped: 700, Xid 31 FAULT_PDE; mapped without the right to write: 700,
// Xid 31 FAULT_RO_VIOLATION.
extern "C" __global__ void write_address(volatile double *to, double value) {
    *to = value;
}

// Store a double four bytes beside its natural place: 716, Xid 13.
extern "C" __global__ void misaligned(double *buffer) {
    volatile double *odd = (volatile double *)((volatile char *)buffer + 4);
    *odd = 1.0;
}

// Go where no code is: 715, Xid 13. PTX has no illegal instruction to write down, so on a GPU this
// calls into data; some GPUs call that an invalid program counter (718).
extern "C" __global__ void illegal_instruction(unsigned long long *data) {
#ifdef __CUDACC__
    data[0] = ~0ull;
    data[1] = ~0ull;
    ((void (*)())data)();
#else
    (void)data;
    simulated_illegal_instruction();
#endif
}

// Store far behind the block's shared memory: Xid 13 "Out Of Range Address"; 700, 717 and 719 are
// all told of it.
extern "C" __global__ void shared_out_of_range(int index) {
#ifdef __CUDACC__
    __shared__ volatile int few[32];
    few[index] = 1;
#else
    (void)index;
    simulated_out_of_range();
#endif
}

#ifdef __CUDACC__
// Every call needs its own frame, and needs it again after the call below it. (A C name: a static
// function's would hold a number of the compiler's.)
extern "C" __device__ __noinline__ int descend(int depth) {
    volatile int frame[64];
    frame[depth & 63] = depth;
    return depth <= 0 ? 0 : descend(depth - 1) + frame[depth & 63];
}
#endif

// Calls itself until the stack is used up: 714, 700 or 719, Xid 13 or 31.
extern "C" __global__ void stack_overflow(int *out, int depth) {
#ifdef __CUDACC__
    *out = descend(depth);
#else
    (void)out, (void)depth;
    simulated_stack_overflow();
#endif
}

// Jump to an address where nothing can be run: 718 or 715, Xid 13.
extern "C" __global__ void bad_branch(unsigned long long target) {
#ifdef __CUDACC__
    ((void (*)())target)();
#else
    (void)target;
    simulated_bad_branch();
#endif
}

// 719, Xid 13.
extern "C" __global__ void trap() {
    __trap();
}

// An assertion that fails unless `value` is positive: 710.
extern "C" __global__ void assert_positive(int value) {
    assert(value > 0);
}

// Runs until *stop is not 0: without an end when nobody writes it.
extern "C" __global__ void spin(volatile int *stop) {
    while (*stop == 0) {
    }
}

// All blocks of a cooperative launch wait for each other, `arrived` has a zeroed word for each;
// then the last one traps if `trap_after` is not 0. Never ends where the blocks do not run at the
// same time.
extern "C" __global__ void meet(volatile int *arrived, int trap_after) {
    arrived[blockIdx.x] = 1;
    __threadfence();
    for (unsigned other = 0; other < gridDim.x; other++)
        while (arrived[other] == 0) {
        }
    if (trap_after != 0 && blockIdx.x == gridDim.x - 1)
        __trap();
    arrived[blockIdx.x] = 2;
}

// p[i] = value
extern "C" __global__ void fill(double *p, int n, double value) {
    const long long i = thread_index();
    if (i < n)
        p[i] = value;
}

// y[i] = y[i] + a * x[i]
extern "C" __global__ void axpy(int n, double a, const double *x, double *y) {
    const long long i = thread_index();
    if (i < n)
        y[i] = y[i] + a * x[i];
}

// sums[t], for each thread t of T: FNV-1a over the 32-bit words t, t+T, t+2T, … of the n words. The
// same bytes give the same sums.
extern "C" __global__ void checksum(unsigned long long *sums, const unsigned int *words, int n) {
    unsigned long long hash = 14695981039346656037ull;
    for (long long i = thread_index(); i < n; i += thread_count())
        hash = (hash ^ words[i]) * 1099511628211ull;
    sums[thread_index()] = hash;
}

// p[i] = a word that depends on i and the seed alone (splitmix64), for checking bytes that somebody
// kept.
extern "C" __global__ void fill_pattern(unsigned long long *p, long long n,
                                        unsigned long long seed) {
    const long long i = thread_index();
    if (i >= n)
        return;
    unsigned long long word = seed + (unsigned long long)(i + 1) * 0x9e3779b97f4a7c15ull;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ull;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebull;
    p[i] = word ^ (word >> 31);
}
