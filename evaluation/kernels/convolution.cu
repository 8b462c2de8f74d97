// 2-D convolution, NCHW, stride 1, zero padding (kernel - 1) / 2; one thread per output element.
// grid: (ceil(width / blockDim.x), ceil(height / blockDim.y), images * out_channels).
// Exact: a chain of fused multiply-adds in the order channel, row, column.
extern "C" __global__ void convolution(const float *__restrict__ in, const float *__restrict__ weights,
                                       const float *__restrict__ bias, float *__restrict__ out, int in_channels,
                                       int out_channels, int height, int width, int kernel) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    int image = blockIdx.z / out_channels, channel = blockIdx.z % out_channels;
    if (x >= width || y >= height) {
        return;
    }
    int padding = (kernel - 1) / 2;
    float sum = bias[channel];
    for (int c = 0; c < in_channels; c++) {
        for (int dy = 0; dy < kernel; dy++) {
            for (int dx = 0; dx < kernel; dx++) {
                int sy = y + dy - padding, sx = x + dx - padding;
                if (sy >= 0 && sy < height && sx >= 0 && sx < width) {
                    sum = fmaf(in[((image * in_channels + c) * height + sy) * width + sx],
                               weights[((channel * in_channels + c) * kernel + dy) * kernel + dx], sum);
                }
            }
        }
    }
    out[((image * out_channels + channel) * height + y) * width + x] = sum;
}
