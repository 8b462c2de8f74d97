// What nvcc makes of a small CUDA file for a program that links libcudart.so.12 or libcudart.so.13, written out by hand: a
// fat binary with PTX, registered when the library is loaded, and every way of launching its kernel.
#include <stdint.h>
#include <string.h>

typedef struct { unsigned x, y, z; } dim3;
typedef void *cudaStream_t;
typedef int cudaError_t;
typedef struct {
    dim3 grid, block;
    size_t shared_bytes;
    cudaStream_t stream;
    void *attributes;
    unsigned attribute_count;
} cudaLaunchConfig_t;

extern void **__cudaRegisterFatBinary(void *);
extern void __cudaRegisterFatBinaryEnd(void **);
extern void __cudaUnregisterFatBinary(void **);
extern void __cudaRegisterFunction(void **, const char *, char *, const char *, int, void *, void *, dim3 *, dim3 *, int *);
extern void __cudaRegisterManagedVar(void **, void **, char *, const char *, int, size_t, int, int);
extern char __cudaInitModule(void **);
extern void __cudaRegisterVar(void **, char *, char *, const char *, int, size_t, int, int);
extern unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, cudaStream_t);
extern cudaError_t __cudaPopCallConfiguration(dim3 *, dim3 *, size_t *, void *);
extern cudaError_t __cudaGetKernel(void **, const void *);
extern cudaError_t __cudaLaunchKernel(void *, dim3, dim3, void **, size_t, cudaStream_t);
extern cudaError_t cudaLaunchKernel(const void *, dim3, dim3, void **, size_t, cudaStream_t);
extern cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *, const void *, void **);
extern cudaError_t cudaFuncGetAttributes(void *, const void *);
extern cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *, const void *, int, size_t);
extern cudaError_t cudaMemcpyToSymbol(const void *, const void *, size_t, size_t, int);
extern cudaError_t cudaMemcpyFromSymbol(void *, const void *, size_t, size_t, int);
extern cudaError_t cudaGetSymbolAddress(void **, const void *);

static const char ptx[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .global .align 4 .f32 scale;\n"
    ".global .attribute(.managed) .align 4 .u32 launches = 40;\n"
    ".visible .entry add(.param .u64 p, .param .u32 n, .param .f32 v) {\n"
    ".reg .pred %p<2>; .reg .f32 %f<5>; .reg .b32 %r<6>; .reg .b64 %rd<5>;\n"
    "ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [n]; ld.param.f32 %f1, [v];\n"
    "mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.s32 %r5, %r2, %r3, %r4;\n"
    "setp.ne.s32 %p1, %r5, 0; @%p1 bra COUNTED;\n"
    "atom.global.add.u32 %r2, [launches], 1;\n"
    "COUNTED:\n"
    "setp.ge.s32 %p1, %r5, %r1; @%p1 bra DONE;\n"
    "cvta.to.global.u64 %rd2, %rd1; mul.wide.s32 %rd3, %r5, 4; add.s64 %rd4, %rd2, %rd3;\n"
    "ld.global.f32 %f2, [%rd4]; ld.global.f32 %f3, [scale]; fma.rn.f32 %f4, %f1, %f3, %f2;\n"
    "st.global.f32 [%rd4], %f4;\n"
    "DONE: ret;\n}\n";

// Container header, entry header, PTX: see torpor-proto/src/image.
static struct {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t body_bytes;
    uint16_t kind, entry_version;
    uint32_t entry_header_bytes;
    uint64_t stored_bytes;
    uint32_t compressed_bytes, name_bytes;
    uint32_t code_version, architecture;
    uint32_t name_at, unused;
    uint64_t flags, reserved, plain_bytes;
    char text[(sizeof ptx + 7) / 8 * 8];
} container;
static struct { uint32_t magic, version; void *container; void *file; } wrapper;
static void **handle;

static float scale_shadow;
static unsigned *launches;  // of a managed variable the program has a pointer
static char is_initialized;

// The host function that stands for the kernel: what `add<<<grid, block, 0, stream>>>` calls.
static cudaError_t add(float *data, int count, float value) {
    dim3 grid, block;
    size_t shared_bytes;
    cudaStream_t stream;
    void *arguments[] = {&data, &count, &value};
    cudaError_t error = __cudaPopCallConfiguration(&grid, &block, &shared_bytes, &stream);
    return error ? error : cudaLaunchKernel((const void *)add, grid, block, arguments, shared_bytes, stream);
}

__attribute__((constructor)) static void load(void) {
    container.magic = 0xba55ed50;
    container.version = 1;
    container.header_bytes = 16;
    container.body_bytes = sizeof container - 16;
    container.kind = 1;
    container.entry_version = 0x101;
    container.entry_header_bytes = 64;
    container.stored_bytes = sizeof container.text;
    container.architecture = 70;
    memcpy(container.text, ptx, sizeof ptx);
    wrapper.magic = 0x466243b1;
    wrapper.version = 1;
    wrapper.container = &container;
    handle = __cudaRegisterFatBinary(&wrapper);
    __cudaRegisterFunction(handle, (const char *)add, (char *)"add", "add", -1, 0, 0, 0, 0, 0);
    __cudaRegisterVar(handle, (char *)&scale_shadow, (char *)"scale", "scale", 0, sizeof scale_shadow, 0, 0);
    __cudaRegisterManagedVar(handle, (void **)&launches, (char *)"launches", "launches", 0, sizeof *launches, 0, 0);
    __cudaRegisterFatBinaryEnd(handle);
}

__attribute__((destructor)) static void unload(void) { __cudaUnregisterFatBinary(handle); }

static dim3 one_dimension(unsigned size) { return (dim3){size, 1, 1}; }

// data[0..count] += value * scale, launched in one of the four ways.
int extension_add(int way, float *data, int count, float value, cudaStream_t stream) {
    dim3 grid = one_dimension((count + 127) / 128), block = one_dimension(128);
    void *arguments[] = {&data, &count, &value};
    switch (way) {
    case 0:
        return __cudaPushCallConfiguration(grid, block, 0, stream) ? -1 : add(data, count, value);
    case 1: {
        static void *kernel;
        cudaError_t error = kernel ? 0 : __cudaGetKernel(&kernel, (const void *)add);
        return error ? error : __cudaLaunchKernel(kernel, grid, block, arguments, 0, stream);
    }
    case 2: {
        cudaLaunchConfig_t config = {grid, block, 0, stream, 0, 0};
        return cudaLaunchKernelExC(&config, (const void *)add, arguments);
    }
    default:
        return cudaLaunchKernel((const void *)add, grid, block, arguments, 0, stream);
    }
}

// With a configuration that cannot be: 0 empty grid, 1 too many threads, 2 more shared memory than asked for.
int extension_launch_wrongly(int what) {
    float *data = 0, value = 0;
    int count = 0;
    void *arguments[] = {&data, &count, &value};
    dim3 grid = one_dimension(what == 0 ? 0 : 1), block = one_dimension(what == 1 ? 2048 : 32);
    return cudaLaunchKernel((const void *)add, grid, block, arguments, what == 2 ? 1 << 20 : 0, 0);
}

// The address of a managed variable, as each use of it finds it.
unsigned *extension_launches(void) {
    if (!is_initialized) is_initialized = __cudaInitModule(handle);
    return launches;
}
int extension_launches_address(void **address) { return cudaGetSymbolAddress(address, extension_launches()); }

int extension_set_scale(float value) { return cudaMemcpyToSymbol(&scale_shadow, &value, sizeof value, 0, 1); }
int extension_get_scale(float *value) { return cudaMemcpyFromSymbol(value, &scale_shadow, sizeof *value, 0, 2); }
int extension_beyond_scale(float *value) { return cudaMemcpyFromSymbol(value, &scale_shadow, 4, 1, 2); }
int extension_scale_address(void **address) { return cudaGetSymbolAddress(address, &scale_shadow); }
int extension_attributes(void *attributes) { return cudaFuncGetAttributes(attributes, (const void *)add); }
int extension_occupancy(int *blocks) {
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, (const void *)add, 128, 0);
}
