// Evaluates a polynomial whose coefficients the host writes to constant memory, and counts calls in a global.
// Exact: Horner's rule in fused multiply-adds.
extern "C" {
__constant__ float coefficients[8] = {1.0f, -0.5f, 0.25f, -0.125f, 0.0625f, -0.03125f, 0.015625f, -0.0078125f};
__constant__ int degree = 7;
__device__ unsigned int evaluations;

__global__ void constant_table(const float *x, float *y, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        float value = coefficients[degree];
        for (int d = degree - 1; d >= 0; d--) {
            value = fmaf(value, x[i], coefficients[d]);
        }
        y[i] = value;
        atomicAdd(&evaluations, 1u);
    }
}
}
