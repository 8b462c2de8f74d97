// Softmax of each row; one block per row, shuffles within a warp, shared memory between warps.
// Within rounding: the exponential is approximate on a GPU.
#define MINUS_INFINITY __int_as_float(0xff800000)

__device__ static float warp_max(float value) {
    for (int offset = 16; offset > 0; offset /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    return value;
}

__device__ static float warp_sum(float value) {
    for (int offset = 16; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    }
    return value;
}

// blockDim.x must be a multiple of 32; dynamic shared memory: one float per warp.
extern "C" __global__ void softmax(const float *__restrict__ in, float *__restrict__ out, int columns) {
    extern __shared__ float partial[];
    const float *row_in = in + (size_t)blockIdx.x * columns;
    float *row_out = out + (size_t)blockIdx.x * columns;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;

    float largest = MINUS_INFINITY;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        largest = fmaxf(largest, row_in[i]);
    }
    largest = warp_max(largest);
    if (lane == 0) {
        partial[warp] = largest;
    }
    __syncthreads();
    largest = warp_max(lane < warps ? partial[lane] : MINUS_INFINITY);
    __syncthreads();

    float sum = 0.0f;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        sum += expf(row_in[i] - largest);
    }
    sum = warp_sum(sum);
    if (lane == 0) {
        partial[warp] = sum;
    }
    __syncthreads();
    sum = warp_sum(lane < warps ? partial[lane] : 0.0f);

    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        row_out[i] = expf(row_in[i] - largest) / sum;
    }
}
