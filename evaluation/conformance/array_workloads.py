"""Arrays, textures and surfaces, for `run`: a compiled program that compares them with the CPU, and CuPy's.

    array_workloads.py arrays | array_cupy

arrays needs a compiler (evaluation/nvcc.py), array_cupy CuPy.
"""

import sys


def program():
    from compiled import passes
    passes("arrays.cu")


def cupy():
    import cupy
    import numpy
    from cupy.cuda import runtime, texture

    kernels = cupy.RawModule(code=r"""
    extern "C" __global__ void fetch(float *out, cudaTextureObject_t texture, int width, int height) {
        int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
        if (x < width && y < height) out[y * width + x] = tex2D<float>(texture, x + 0.5f, y + 0.5f);
    }
    extern "C" __global__ void triple(cudaSurfaceObject_t surface, int width, int height) {
        int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
        if (x >= width || y >= height) return;
        float value = surf2Dread<float>(surface, x * 4, y);
        surf2Dwrite(3 * value, surface, x * 4, y);
    }
    """)
    fetch, triple = kernels.get_function("fetch"), kernels.get_function("triple")
    width, height = 300, 200
    shape = ((width + 15) // 16, (height + 15) // 16), (16, 16)
    floats = texture.ChannelFormatDescriptor(32, 0, 0, 0, runtime.cudaChannelFormatKindFloat)
    picture = texture.CUDAarray(floats, width, height, 0, runtime.cudaArraySurfaceLoadStore)
    place = texture.ResourceDescriptor(runtime.cudaResourceTypeArray, cuArr=picture)
    sampler = texture.TextureDescriptor((runtime.cudaAddressModeClamp,) * 2, runtime.cudaFilterModePoint,
                                        runtime.cudaReadModeElementType)
    read, written = texture.TextureObject(place, sampler), texture.SurfaceObject(place)
    values = numpy.random.default_rng(0).random((height, width), dtype=numpy.float32)
    out = cupy.empty((height, width), cupy.float32)
    for source in (values, cupy.asarray(values)):
        picture.copy_from(source)
        for times in (1, 3, 9):
            fetch(*shape, (out, read, numpy.int32(width), numpy.int32(height)))
            assert numpy.allclose(out.get(), values * times, rtol=1e-6), times
            triple(*shape, (written, numpy.int32(width), numpy.int32(height)))
    back = numpy.empty_like(values)
    picture.copy_to(back)
    assert numpy.allclose(back, 27 * values, rtol=1e-6)


if __name__ == "__main__":
    {"arrays": program, "array_cupy": cupy}[sys.argv[1]]()
    print(f"{sys.argv[1]} passed")
