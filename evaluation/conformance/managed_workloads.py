"""Workloads on managed memory, for `run`: Numba's managed arrays, and a compiled program with `__managed__` variables.

    managed_workloads.py managed_numba | managed_nvcc

managed_numba needs numba-cuda, managed_nvcc a compiler (evaluation/nvcc.py).
"""

import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


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


def program():
    sys.path.insert(0, str(HERE.parent))
    from nvcc import compile_cuda

    with tempfile.TemporaryDirectory() as folder:
        for runtime in ("static", "shared"):
            binary = pathlib.Path(folder) / runtime
            compile_cuda(HERE / "managed.cu", binary, f"-cudart={runtime}")
            done = subprocess.run([binary], capture_output=True, text=True, check=False)
            assert done.returncode == 0 and done.stdout == "right\n", (runtime, done.returncode, done.stdout, done.stderr)


if __name__ == "__main__":
    {"managed_numba": arrays, "managed_nvcc": program}[sys.argv[1]]()
    print(f"{sys.argv[1]} passed")
