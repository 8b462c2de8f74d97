// Nanoseconds of the calling thread for one call, in batches that fit into the command ring; a synchronisation between
// them is not counted. Uses the kernel of the test's extension.
#include "../../torpor-cli/tests/torch/extension.c"
#include <stdlib.h>
#include <time.h>

extern cudaError_t cudaStreamSynchronize(cudaStream_t);
extern cudaError_t cudaGetLastError(void);
extern cudaError_t cudaGetDevice(int *);
extern cudaError_t cudaStreamIsCapturing(cudaStream_t, int *);
extern cudaError_t cudaEventCreateWithFlags(void **, unsigned);
extern cudaError_t cudaEventRecord(void *, cudaStream_t);

static double now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

// The median over the rounds; the least one in *least. Negative if a call fails.
double launch_cost(int what, int batch, int rounds, double *least) {
    float *data = 0, value = 0;
    int count = 0, number;
    void *kernel, *event, *arguments[] = {&data, &count, &value};
    dim3 grid = one_dimension(1), block = one_dimension(32);
    cudaLaunchConfig_t config = {grid, block, 0, 0, 0, 0};
    double *times = malloc(rounds * sizeof *times);
    int failed = __cudaGetKernel(&kernel, (const void *)add) || cudaEventCreateWithFlags(&event, 2);
    for (int round = -10; round < rounds && !failed; round++) {
        double start = now_ns();
        for (int index = 0; index < batch; index++)
            switch (what) {
            case 0: failed |= __cudaLaunchKernel(kernel, grid, block, arguments, 0, 0); break;
            case 1: failed |= cudaLaunchKernel((const void *)add, grid, block, arguments, 0, 0); break;
            case 2: failed |= cudaLaunchKernelExC(&config, (const void *)add, arguments); break;
            case 3: failed |= cudaEventRecord(event, 0); break;
            case 4: failed |= cudaStreamIsCapturing(0, &number); break;
            case 5: failed |= cudaGetDevice(&number); break;
            default: failed |= cudaGetLastError();
            }
        if (round >= 0)
            times[round] = (now_ns() - start) / batch;
        failed |= cudaStreamSynchronize(0);
    }
    qsort(times, rounds, sizeof *times, compare);
    *least = times[0];
    double median = failed ? -1 : times[rounds / 2];
    free(times);
    return median;
}
