// The 2-D heat equation, explicit Euler steps in double precision: the kernels of the tutorial.
//
// A grid of ny rows and nx columns lies row by row in memory. The temperature of the rim never
// changes; inside,
//     next = now + k * (north + south + west + east - 4 * now),
// stable for 0 < k <= 0.25. Launches are one-dimensional with at least ny*nx threads
// (heat_residual: ny threads).
//
// Results are the same bit for bit on a GPU, on a CPU and in numpy, so that a disturbed run can be
// compared with an undisturbed one: every sum is written in the order in which it is to be done,
// nothing is added atomically, and the file is compiled without fused multiply-add (nvcc
// -fmad=false, g++ -ffp-contract=off). Compile: nvcc -ptx -arch=sm_75 -fmad=false heat.cu

static __device__ long long heat_thread() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

// The field at step 0: cold (0) everywhere, the top rim at 100, and a block of 50 in the middle
// third.
extern "C" __global__ void heat_init(double *field, int ny, int nx) {
    const long long i = heat_thread();
    if (i >= (long long)ny * nx)
        return;
    const int y = (int)(i / nx);
    const int x = (int)(i % nx);
    double value = 0.0;
    if (y == 0)
        value = 100.0;
    else if (y >= ny / 3 && y < ny - ny / 3 && x >= nx / 3 && x < nx - nx / 3)
        value = 50.0;
    field[i] = value;
}

// One step from `now` to `next`; the two do not overlap.
extern "C" __global__ void heat_step(double *next, const double *now, int ny, int nx, double k) {
    const long long i = heat_thread();
    if (i >= (long long)ny * nx)
        return;
    const int y = (int)(i / nx);
    const int x = (int)(i % nx);
    const double centre = now[i];
    if (y == 0 || y == ny - 1 || x == 0 || x == nx - 1) {
        next[i] = centre;
        return;
    }
    const double around = ((now[i - nx] + now[i + nx]) + now[i - 1]) + now[i + 1];
    next[i] = centre + k * (around - 4.0 * centre);
}

// row_sums[y] = sum over x of (a[y][x] - b[y][x])^2, from left to right; the caller adds the rows
// in its own fixed order.
extern "C" __global__ void heat_residual(double *row_sums, const double *a, const double *b, int ny,
                                         int nx) {
    const long long y = heat_thread();
    if (y >= ny)
        return;
    double sum = 0.0;
    for (int x = 0; x < nx; x++) {
        const double difference = a[y * nx + x] - b[y * nx + x];
        sum = sum + difference * difference;
    }
    row_sums[y] = sum;
}
