// out = (x - mean) / sqrt(variance + epsilon) * gamma + beta over each row; one block of 32*k threads per row.
// Within rounding: rsqrt is approximate on a GPU.
__device__ static float warp_sum(float value) {
    for (int offset = 16; offset > 0; offset /= 2) {
        value += __shfl_down_sync(0xffffffffu, value, offset);
    }
    return value;
}

// The sum over the block, the same in every thread.
__device__ static float block_sum(float value) {
    __shared__ float partial[32];
    __shared__ float total;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    value = warp_sum(value);
    if (lane == 0) {
        partial[warp] = value;
    }
    __syncthreads();
    if (warp == 0) {
        value = warp_sum(lane < blockDim.x / 32 ? partial[lane] : 0.0f);
        if (lane == 0) {
            total = value;
        }
    }
    __syncthreads();
    return total;
}

extern "C" __global__ void layer_norm(const float *__restrict__ in, const float *__restrict__ gamma,
                                      const float *__restrict__ beta, float *__restrict__ out, int columns,
                                      float epsilon) {
    const float *row_in = in + (size_t)blockIdx.x * columns;
    float *row_out = out + (size_t)blockIdx.x * columns;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        sum += row_in[i];
    }
    float mean = block_sum(sum) / columns;
    float squares = 0.0f;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        float difference = row_in[i] - mean;
        squares = fmaf(difference, difference, squares);
    }
    float scale = rsqrtf(block_sum(squares) / columns + epsilon);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        row_out[i] = fmaf((row_in[i] - mean) * scale, gamma[i], beta[i]);
    }
}
