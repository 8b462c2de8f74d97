// In place: x[row, column] = max(x[row, column] + bias[column], 0), four columns per thread. Exact.
extern "C" __global__ void bias_relu(float4 *__restrict__ x, const float4 *__restrict__ bias, int rows,
                                     int columns_of_four) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    int row = blockIdx.y;
    if (column >= columns_of_four || row >= rows) {
        return;
    }
    float4 value = x[row * columns_of_four + column];
    float4 add = bias[column];
    value.x = fmaxf(value.x + add.x, 0.0f);
    value.y = fmaxf(value.y + add.y, 0.0f);
    value.z = fmaxf(value.z + add.z, 0.0f);
    value.w = fmaxf(value.w + add.w, 0.0f);
    x[row * columns_of_four + column] = value;
}
