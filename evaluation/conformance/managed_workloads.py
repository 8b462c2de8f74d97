"""Workloads on managed memory, for `run`: Numba's managed arrays, CuPy's allocator of it, and a compiled program with `__managed__`
variables.

    managed_workloads.py managed_numba | managed_cupy | managed_nvcc

managed_numba needs numba-cuda, managed_cupy CuPy, managed_nvcc a compiler (evaluation/nvcc.py).
"""

import sys


def arrays():
    import numpy
    # A numba-cuda that is older than NumPy 2.5 asks for a name which that has given up, and cannot be imported natively, either.
    if not hasattr(numpy, "row_stack"):
        numpy.row_stack = numpy.vstack
    from numba import cuda

    @cuda.jit
    def axpy(scale, x, y):
        first, step = cuda.grid(1), cuda.gridsize(1)
        for index in range(first, x.size, step):
            y[index] += scale * x[index]

    count = 3_000_001
    x, y = (cuda.managed_array(count, dtype=numpy.float32) for _ in range(2))
    x[:], y[:] = numpy.arange(count) % 13, 1
    expected = numpy.ones(count, numpy.float32)
    for turn in range(1, 8):
        axpy[200, 256](turn, x, y)
        cuda.synchronize()
        expected += numpy.float32(turn) * x
        assert numpy.array_equal(y, expected), turn
        # The host's turn: what it writes is what the next kernel reads.
        y += 1
        expected += 1
        x[::7] = turn
    # Device arrays beside managed ones, and many small ones.
    beside = cuda.to_device(numpy.full(count, 2, numpy.float32))
    axpy[200, 256](1, beside, y)
    cuda.synchronize()
    assert numpy.array_equal(y, expected + 2)
    small = [cuda.managed_array(10, dtype=numpy.int32) for _ in range(200)]
    for number, array in enumerate(small):
        array[:] = number
    total = cuda.managed_array(1, dtype=numpy.int32)
    total[0] = 0

    @cuda.jit
    def add(values, total):
        cuda.atomic.add(total, 0, values[cuda.grid(1)])

    for array in small:
        add[1, 10](array, total)
    cuda.synchronize()
    assert total[0] == 10 * sum(range(200)), total[0]


def cupy():
    import cupy
    import numpy
    cupy.cuda.set_allocator(cupy.cuda.MemoryPool(cupy.cuda.malloc_managed).malloc)
    random = numpy.random.default_rng(0)
    left, right = (random.integers(-4, 5, (512, 512)).astype(numpy.float32) for _ in range(2))
    product = cupy.asarray(left) @ cupy.asarray(right)
    assert numpy.array_equal(product.get(), left @ right)
    kind = cupy.cuda.runtime.pointerGetAttributes(product.data.ptr).type
    assert kind == 3, "managed memory"
    values = random.permutation(1 << 20).astype(numpy.int32)
    on_gpu = cupy.asarray(values)
    assert numpy.array_equal(cupy.sort(on_gpu).get(), numpy.arange(1 << 20))
    assert int(on_gpu.sum(dtype=cupy.int64)) == int(values.sum(dtype=numpy.int64))
    for turn in range(20):
        on_gpu = on_gpu * 3 + turn
        values = values * numpy.int32(3) + numpy.int32(turn)
    assert numpy.array_equal(on_gpu.get(), values)


def program():
    from compiled import passes
    passes("managed.cu")


if __name__ == "__main__":
    {"managed_numba": arrays, "managed_cupy": cupy, "managed_nvcc": program}[sys.argv[1]]()
    print(f"{sys.argv[1]} passed")
