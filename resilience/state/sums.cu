// Sums of memory, to tell whether it is what it was: of 64-bit words, each mixed with its place.
// A changed, missing or moved word changes the sum; it keeps nobody out who wants to deceive.
// Launches are one-dimensional. Compile: nvcc -ptx -arch=sm_75 -fmad=false sums.cu

// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection; each bit changes all others.
static __device__ unsigned long long mixed(unsigned long long word) {
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ull;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebull;
    return word ^ (word >> 31);
}

// sums[t], for each thread t of T: over the words t, t+T, t+2T, … of the n words.
extern "C" __global__ void sum_words(unsigned long long *sums, const unsigned long long *words,
                                     unsigned long long n) {
    const unsigned long long thread = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned long long threads = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long sum = 0;
    for (unsigned long long i = thread; i < n; i += threads)
        sum += mixed(words[i] ^ mixed(i + 1));
    sums[thread] = sum;
}

// out[t], for each thread t of T: the sum of sums t, t+T, t+2T, … of the n.
extern "C" __global__ void add_sums(unsigned long long *out, const unsigned long long *sums,
                                    unsigned long long n) {
    const unsigned long long thread = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned long long threads = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long sum = 0;
    for (unsigned long long i = thread; i < n; i += threads)
        sum += sums[i];
    out[thread] = sum;
}
