// Arrays, textures and surfaces: what kernels read and write through them against the same on the CPU.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include <cuda_runtime.h>

#define OK(call) do { cudaError_t e = (call); if (e != cudaSuccess) { \
    std::printf("line %d: %s: %s\n", __LINE__, #call, cudaGetErrorString(e)); std::exit(1); } } while (0)
#define RIGHT(condition) do { if (!(condition)) { std::printf("line %d: not %s\n", __LINE__, #condition); std::exit(2); } } while (0)

constexpr int WIDTH = 96, HEIGHT = 40, DEPTH = 5;

template <typename T> struct Device {
    T *data;
    size_t count;
    explicit Device(size_t count) : count(count) { OK(cudaMalloc(&data, count * sizeof(T))); }
    explicit Device(const std::vector<T> &from) : Device(from.size()) {
        OK(cudaMemcpy(data, from.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    }
    ~Device() { cudaFree(data); }
    std::vector<T> host() const {
        std::vector<T> out(count);
        OK(cudaMemcpy(out.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
        return out;
    }
};

static cudaTextureDesc sampler(cudaTextureAddressMode mode, cudaTextureFilterMode filter, cudaTextureReadMode read, bool normalized) {
    cudaTextureDesc desc = {};
    for (auto &address : desc.addressMode) address = mode;
    desc.filterMode = filter;
    desc.readMode = read;
    desc.normalizedCoords = normalized;
    return desc;
}

static cudaTextureObject_t over(cudaArray_t array, const cudaTextureDesc &desc) {
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    cudaTextureObject_t texture = 0;
    OK(cudaCreateTextureObject(&texture, &resource, &desc, nullptr));
    return texture;
}

static cudaSurfaceObject_t surface_of(cudaArray_t array) {
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    cudaSurfaceObject_t surface = 0;
    OK(cudaCreateSurfaceObject(&surface, &resource));
    return surface;
}

__device__ int flat() { return blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void fetch_1d(cudaTextureObject_t texture, float *out, int n, float step, float offset) {
    int i = flat();
    if (i < n) out[i] = tex1D<float>(texture, i * step + offset);
}

__global__ void fetch_linear(cudaTextureObject_t texture, float4 *out, int n) {
    int i = flat();
    if (i < n) out[i] = tex1Dfetch<float4>(texture, i);
}

template <typename T> __global__ void fetch_2d(cudaTextureObject_t texture, T *out, int width, int height, float dx, float dy) {
    int i = flat();
    if (i < width * height) out[i] = tex2D<T>(texture, i % width + dx, i / width + dy);
}

__global__ void fetch_normalized(cudaTextureObject_t texture, float *out, int width, int height) {
    int i = flat();
    // Twice over in both directions.
    if (i < 4 * width * height)
        out[i] = tex2D<float>(texture, (i % (2 * width) + 0.5f) / width, (i / (2 * width) + 0.5f) / height);
}

__global__ void fetch_3d(cudaTextureObject_t texture, int *out) {
    int i = flat();
    if (i < WIDTH * HEIGHT * DEPTH)
        out[i] = tex3D<int>(texture, i % WIDTH + .5f, i / WIDTH % HEIGHT + .5f, i / (WIDTH * HEIGHT) + .5f);
}

__global__ void fetch_layers(cudaTextureObject_t texture, int *out) {
    int i = flat();
    if (i < WIDTH * HEIGHT * DEPTH)
        out[i] = tex2DLayered<int>(texture, i % WIDTH + .5f, i / WIDTH % HEIGHT + .5f, i / (WIDTH * HEIGHT));
}

__global__ void double_surface(cudaSurfaceObject_t from, cudaSurfaceObject_t to, int width, int height) {
    int i = flat();
    if (i >= width * height) return;
    ushort2 value;
    surf2Dread(&value, from, i % width * (int)sizeof value, i / width);
    value.x *= 2, value.y += 1;
    surf2Dwrite(value, to, i % width * (int)sizeof value, i / width);
}

__global__ void write_3d(cudaSurfaceObject_t to) {
    int i = flat();
    if (i < WIDTH * HEIGHT * DEPTH) surf3Dwrite(3 * i + 1, to, i % WIDTH * 4, i / WIDTH % HEIGHT, i / (WIDTH * HEIGHT));
}

__global__ void levels(cudaTextureObject_t texture, float *out, int n) {
    int i = flat();
    if (i < n) out[i] = tex2DLod<float>(texture, .5f, .5f, i);
}

template <typename... P, typename... A> static void launch(void (*kernel)(P...), int n, A... arguments) {
    kernel<<<(n + 127) / 128, 128>>>(arguments...);
    OK(cudaGetLastError());
    OK(cudaDeviceSynchronize());
}

static std::vector<float> ramp(int n) {
    std::vector<float> values(n);
    for (int i = 0; i < n; ++i) values[i] = float(i * 7 % 101) - 20;
    return values;
}

static bool near(float a, float b) { return std::fabs(a - b) < 0.3f; }  // the hardware's weights have 8 bits

static void one_dimension() {
    auto values = ramp(WIDTH);
    auto format = cudaCreateChannelDesc<float>();
    cudaArray_t array;
    OK(cudaMallocArray(&array, &format, WIDTH));
    OK(cudaMemcpy2DToArray(array, 0, 0, values.data(), WIDTH * 4, WIDTH * 4, 1, cudaMemcpyHostToDevice));
    Device<float> out(3 * WIDTH);
    for (auto mode : {cudaAddressModeClamp, cudaAddressModeBorder}) {
        auto texture = over(array, sampler(mode, cudaFilterModePoint, cudaReadModeElementType, false));
        launch(fetch_1d, 3 * WIDTH, texture, out.data, 3 * WIDTH, 1.f, .5f - WIDTH);
        auto got = out.host();
        for (int i = 0; i < 3 * WIDTH; ++i) {
            int at = i - WIDTH, inside = at < 0 ? 0 : at >= WIDTH ? WIDTH - 1 : at;
            RIGHT(got[i] == (mode == cudaAddressModeBorder && at != inside ? 0 : values[inside]));
        }
        OK(cudaDestroyTextureObject(texture));
    }
    auto smooth = over(array, sampler(cudaAddressModeClamp, cudaFilterModeLinear, cudaReadModeElementType, false));
    launch(fetch_1d, 2 * WIDTH - 2, smooth, out.data, 2 * WIDTH - 2, .5f, .5f);
    auto got = out.host();
    for (int i = 0; i < 2 * WIDTH - 2; ++i)
        RIGHT(near(got[i], i % 2 ? (values[i / 2] + values[i / 2 + 1]) / 2 : values[i / 2]));
    OK(cudaDestroyTextureObject(smooth));
    OK(cudaFreeArray(array));
}

static void two_dimensions() {
    auto values = ramp(WIDTH * HEIGHT);
    auto format = cudaCreateChannelDesc<float>();
    cudaArray_t array, other;
    OK(cudaMallocArray(&array, &format, WIDTH, HEIGHT));
    OK(cudaMallocArray(&other, &format, WIDTH, HEIGHT));
    Device<float> source(values), out(4 * WIDTH * HEIGHT);
    cudaStream_t stream;
    OK(cudaStreamCreate(&stream));
    OK(cudaMemcpy2DToArrayAsync(other, 0, 0, source.data, WIDTH * 4, WIDTH * 4, HEIGHT, cudaMemcpyDeviceToDevice, stream));
    OK(cudaStreamSynchronize(stream));
    OK(cudaStreamDestroy(stream));
    OK(cudaMemcpy2DArrayToArray(array, 0, 0, other, 0, 0, WIDTH * 4, HEIGHT, cudaMemcpyDeviceToDevice));
    auto plain = over(array, sampler(cudaAddressModeClamp, cudaFilterModePoint, cudaReadModeElementType, false));
    launch(fetch_2d<float>, WIDTH * HEIGHT, plain, out.data, WIDTH, HEIGHT, .5f, .5f);
    auto got = out.host();
    for (int i = 0; i < WIDTH * HEIGHT; ++i) RIGHT(got[i] == values[i]);
    auto wrapped = over(array, sampler(cudaAddressModeWrap, cudaFilterModePoint, cudaReadModeElementType, true));
    launch(fetch_normalized, 4 * WIDTH * HEIGHT, wrapped, out.data, WIDTH, HEIGHT);
    got = out.host();
    for (int i = 0; i < 4 * WIDTH * HEIGHT; ++i)
        RIGHT(got[i] == values[i / (2 * WIDTH) % HEIGHT * WIDTH + i % (2 * WIDTH) % WIDTH]);
    auto smooth = over(array, sampler(cudaAddressModeClamp, cudaFilterModeLinear, cudaReadModeElementType, false));
    launch(fetch_2d<float>, WIDTH * HEIGHT, smooth, out.data, WIDTH, HEIGHT, 1.f, 1.f);
    got = out.host();
    for (int y = 0; y + 1 < HEIGHT; ++y)
        for (int x = 0; x + 1 < WIDTH; ++x) {
            const float *at = &values[y * WIDTH + x];
            RIGHT(near(got[y * WIDTH + x], (at[0] + at[1] + at[WIDTH] + at[WIDTH + 1]) / 4));
        }
    std::vector<float> back(10 * 4);
    OK(cudaMemcpy2DFromArray(back.data(), 40, array, 5 * 4, 3, 40, 4, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 40; ++i) RIGHT(back[i] == values[(3 + i / 10) * WIDTH + 5 + i % 10]);
    cudaChannelFormatDesc said;
    cudaExtent extent;
    unsigned flags;
    OK(cudaArrayGetInfo(&said, &extent, &flags, array));
    RIGHT(said.x == 32 && said.y == 0 && said.f == cudaChannelFormatKindFloat);
    RIGHT(extent.width == WIDTH && extent.height == HEIGHT && extent.depth == 0 && flags == 0);
    cudaResourceDesc resource = {};
    OK(cudaGetTextureObjectResourceDesc(&resource, wrapped));
    RIGHT(resource.resType == cudaResourceTypeArray && resource.res.array.array == array);
    cudaTextureDesc desc = {};
    OK(cudaGetTextureObjectTextureDesc(&desc, wrapped));
    RIGHT(desc.normalizedCoords == 1 && desc.addressMode[0] == cudaAddressModeWrap);
    for (auto texture : {plain, wrapped, smooth}) OK(cudaDestroyTextureObject(texture));
    OK(cudaFreeArray(array));
    OK(cudaFreeArray(other));
    // Bytes that are read as numbers from 0 to 1.
    std::vector<uchar4> pixels(WIDTH * HEIGHT);
    for (int i = 0; i < WIDTH * HEIGHT; ++i) pixels[i] = make_uchar4(i, i / 3, i / 7, 255 - i);
    auto bytes = cudaCreateChannelDesc<uchar4>();
    OK(cudaMallocArray(&array, &bytes, WIDTH, HEIGHT));
    OK(cudaMemcpy2DToArray(array, 0, 0, pixels.data(), WIDTH * 4, WIDTH * 4, HEIGHT, cudaMemcpyHostToDevice));
    auto unit = over(array, sampler(cudaAddressModeClamp, cudaFilterModePoint, cudaReadModeNormalizedFloat, false));
    Device<float4> colours(WIDTH * HEIGHT);
    launch(fetch_2d<float4>, WIDTH * HEIGHT, unit, colours.data, WIDTH, HEIGHT, .5f, .5f);
    auto seen = colours.host();
    for (int i = 0; i < WIDTH * HEIGHT; ++i) {
        RIGHT(std::fabs(seen[i].x - pixels[i].x / 255.f) < 1e-6f && std::fabs(seen[i].w - pixels[i].w / 255.f) < 1e-6f);
    }
    OK(cudaDestroyTextureObject(unit));
    OK(cudaFreeArray(array));
}

static void memory() {
    constexpr int COUNT = 1 << 20;
    std::vector<float4> values(COUNT);
    for (int i = 0; i < COUNT; ++i) values[i] = make_float4(i, -i, i * .5f, 1);
    Device<float4> source(values), out(COUNT + 256);
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeLinear;
    resource.res.linear.devPtr = source.data;
    resource.res.linear.desc = cudaCreateChannelDesc<float4>();
    resource.res.linear.sizeInBytes = COUNT * sizeof(float4);
    auto desc = sampler(cudaAddressModeClamp, cudaFilterModePoint, cudaReadModeElementType, false);
    cudaTextureObject_t texture = 0;
    OK(cudaCreateTextureObject(&texture, &resource, &desc, nullptr));
    launch(fetch_linear, COUNT + 256, texture, out.data, COUNT + 256);
    auto got = out.host();
    for (int i = 0; i < COUNT; ++i) RIGHT(got[i].x == values[i].x && got[i].y == values[i].y && got[i].z == values[i].z);
    for (int i = COUNT; i < COUNT + 256; ++i) RIGHT(got[i].x == 0 && got[i].w == 0);
    OK(cudaDestroyTextureObject(texture));
    // Rows with a pitch.
    size_t pitch;
    float *rows;
    OK(cudaMallocPitch(&rows, &pitch, WIDTH * 4, HEIGHT));
    auto plane = ramp(WIDTH * HEIGHT);
    OK(cudaMemcpy2D(rows, pitch, plane.data(), WIDTH * 4, WIDTH * 4, HEIGHT, cudaMemcpyHostToDevice));
    cudaResourceDesc pitched = {};
    pitched.resType = cudaResourceTypePitch2D;
    pitched.res.pitch2D.devPtr = rows;
    pitched.res.pitch2D.desc = cudaCreateChannelDesc<float>();
    pitched.res.pitch2D.width = WIDTH;
    pitched.res.pitch2D.height = HEIGHT;
    pitched.res.pitch2D.pitchInBytes = pitch;
    OK(cudaCreateTextureObject(&texture, &pitched, &desc, nullptr));
    Device<float> seen(WIDTH * HEIGHT);
    launch(fetch_2d<float>, WIDTH * HEIGHT, texture, seen.data, WIDTH, HEIGHT, .5f, .5f);
    RIGHT(seen.host() == plane);
    OK(cudaDestroyTextureObject(texture));
    OK(cudaFree(rows));
}

static void three_dimensions() {
    std::vector<int> values(WIDTH * HEIGHT * DEPTH);
    for (size_t i = 0; i < values.size(); ++i) values[i] = int(i * 2654435761u >> 3);
    auto format = cudaCreateChannelDesc<int>();
    auto extent = make_cudaExtent(WIDTH, HEIGHT, DEPTH);
    auto nearest = sampler(cudaAddressModeClamp, cudaFilterModePoint, cudaReadModeElementType, false);
    Device<int> out(values.size());
    for (unsigned flags : {unsigned(cudaArraySurfaceLoadStore), unsigned(cudaArrayLayered)}) {
        cudaArray_t array;
        OK(cudaMalloc3DArray(&array, &format, extent, flags));
        cudaMemcpy3DParms copy = {};
        copy.srcPtr = make_cudaPitchedPtr(values.data(), WIDTH * 4, WIDTH, HEIGHT);
        copy.dstArray = array;
        copy.extent = extent;
        copy.kind = cudaMemcpyHostToDevice;
        OK(cudaMemcpy3D(&copy));
        auto texture = over(array, nearest);
        if (flags == cudaArrayLayered) launch(fetch_layers, int(values.size()), texture, out.data);
        else launch(fetch_3d, int(values.size()), texture, out.data);
        RIGHT(out.host() == values);
        // A part of it, from the middle.
        std::vector<int> part(10 * 4 * 2);
        cudaMemcpy3DParms back = {};
        back.srcArray = array;
        back.srcPos = make_cudaPos(3, 5, 2);
        back.dstPtr = make_cudaPitchedPtr(part.data(), 40, 10, 4);
        back.extent = make_cudaExtent(10, 4, 2);
        back.kind = cudaMemcpyDeviceToHost;
        OK(cudaMemcpy3D(&back));
        for (int i = 0; i < 80; ++i) RIGHT(part[i] == values[((2 + i / 40) * HEIGHT + 5 + i / 10 % 4) * WIDTH + 3 + i % 10]);
        if (flags == cudaArraySurfaceLoadStore) {
            auto surface = surface_of(array);
            launch(write_3d, int(values.size()), surface);
            launch(fetch_3d, int(values.size()), texture, out.data);
            auto got = out.host();
            for (size_t i = 0; i < got.size(); ++i) RIGHT(got[i] == int(3 * i + 1));
            OK(cudaDestroySurfaceObject(surface));
        }
        OK(cudaDestroyTextureObject(texture));
        OK(cudaFreeArray(array));
    }
}

static void surfaces() {
    std::vector<ushort2> values(WIDTH * HEIGHT);
    for (int i = 0; i < WIDTH * HEIGHT; ++i) values[i] = make_ushort2(i, 7 * i);
    auto format = cudaCreateChannelDesc<ushort2>();
    cudaArray_t from, to;
    OK(cudaMallocArray(&from, &format, WIDTH, HEIGHT, cudaArraySurfaceLoadStore));
    OK(cudaMallocArray(&to, &format, WIDTH, HEIGHT, cudaArraySurfaceLoadStore));
    OK(cudaMemcpy2DToArray(from, 0, 0, values.data(), WIDTH * 4, WIDTH * 4, HEIGHT, cudaMemcpyHostToDevice));
    auto reads = surface_of(from), writes = surface_of(to);
    launch(double_surface, WIDTH * HEIGHT, reads, writes, WIDTH, HEIGHT);
    std::vector<ushort2> got(WIDTH * HEIGHT);
    OK(cudaMemcpy2DFromArray(got.data(), WIDTH * 4, to, 0, 0, WIDTH * 4, HEIGHT, cudaMemcpyDeviceToHost));
    for (int i = 0; i < WIDTH * HEIGHT; ++i)
        RIGHT(got[i].x == (unsigned short)(2 * values[i].x) && got[i].y == (unsigned short)(values[i].y + 1));
    OK(cudaDestroySurfaceObject(reads));
    OK(cudaDestroySurfaceObject(writes));
    cudaArray_t plain;
    OK(cudaMallocArray(&plain, &format, WIDTH, HEIGHT));
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = plain;
    cudaSurfaceObject_t none;
    RIGHT(cudaCreateSurfaceObject(&none, &resource) == cudaErrorInvalidValue);
    (void)cudaGetLastError();
    for (auto array : {from, to, plain}) OK(cudaFreeArray(array));
}

static void mipmaps() {
    constexpr int LEVELS = 5;
    auto format = cudaCreateChannelDesc<float>();
    cudaMipmappedArray_t array;
    OK(cudaMallocMipmappedArray(&array, &format, make_cudaExtent(16, 16, 0), LEVELS));
    for (int level = 0; level < LEVELS; ++level) {
        cudaArray_t one;
        OK(cudaGetMipmappedArrayLevel(&one, array, level));
        int width = 16 >> level;
        std::vector<float> values(width * width, 10.f * level);
        OK(cudaMemcpy2DToArray(one, 0, 0, values.data(), width * 4, width * 4, width, cudaMemcpyHostToDevice));
    }
    auto desc = sampler(cudaAddressModeClamp, cudaFilterModePoint, cudaReadModeElementType, true);
    desc.mipmapFilterMode = cudaFilterModePoint;
    desc.maxMipmapLevelClamp = LEVELS - 1;
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeMipmappedArray;
    resource.res.mipmap.mipmap = array;
    cudaTextureObject_t texture = 0;
    OK(cudaCreateTextureObject(&texture, &resource, &desc, nullptr));
    Device<float> out(LEVELS);
    launch(levels, LEVELS, texture, out.data, LEVELS);
    auto got = out.host();
    for (int level = 0; level < LEVELS; ++level) RIGHT(got[level] == 10.f * level);
    OK(cudaDestroyTextureObject(texture));
    OK(cudaFreeMipmappedArray(array));
}

int main() {
    one_dimension();
    two_dimensions();
    memory();
    three_dimensions();
    surfaces();
    mipmaps();
    std::puts("right");
}
