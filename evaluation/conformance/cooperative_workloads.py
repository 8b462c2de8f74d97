"""Cooperative launches, for `run`: a compiled program whose grids wait for themselves, and Numba's grids.

    cooperative_workloads.py cooperative | cooperative_numba

cooperative needs a compiler (evaluation/nvcc.py), cooperative_numba numba-cuda.
"""

import sys


def program():
    from compiled import passes
    passes("cooperative.cu")


def numba():
    import numpy
    # A numba-cuda that is older than NumPy 2.5 asks for a name which that has given up.
    if not hasattr(numpy, "row_stack"):
        numpy.row_stack = numpy.vstack
    from numba import cuda

    rows, columns = 200, 1024

    # Each row is made of the one above it, read backwards: of what other blocks wrote.
    @cuda.jit("void(int32[:, ::1])")
    def wave(matrix):
        column = cuda.grid(1)
        grid = cuda.cg.this_grid()
        for row in range(1, matrix.shape[0]):
            matrix[row, column] = matrix[row - 1, matrix.shape[1] - column - 1] + 1
            grid.sync()

    expected = numpy.zeros((rows, columns), numpy.int32)
    expected[0] = numpy.arange(columns)
    matrix = cuda.to_device(expected)
    for row in range(1, rows):
        expected[row] = expected[row - 1, ::-1] + 1
    for _ in range(3):
        wave[columns // 32, 32](matrix)
        assert numpy.array_equal(matrix.copy_to_host(), expected)


if __name__ == "__main__":
    {"cooperative": program, "cooperative_numba": numba}[sys.argv[1]]()
    print(f"{sys.argv[1]} passed")
