// A CUDA library that programs load when they run. Compiled twice: with its own copy of cudart inside (nvcc's default), and
// against the libcudart of the process. ADD keeps the two copies apart, so that a mix-up gives a wrong number.
#include <cuda_runtime.h>

__device__ float step_of_this_copy;

__global__ void add_step(float *data, int count, float extra) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count)
        data[index] += step_of_this_copy + extra + ADD;
}

extern "C" int extension_set_step(float step) {
    return cudaMemcpyToSymbol(step_of_this_copy, &step, sizeof step);
}

// Each element grows by the step that was set, `extra` and ADD.
extern "C" int extension_add(float *data, int count, float extra, cudaStream_t stream) {
    add_step<<<(count + 127) / 128, 128, 0, stream>>>(data, count, extra);
    return cudaGetLastError();
}
