"""Workloads on memory that a program had before it registered it, for `run`.

    registered_workloads.py registered_nvcc

registered_nvcc: a compiled program whose kernels use vectors (needs evaluation/nvcc.py's compiler). `registered` and
`registered_kernels` of `run` are programs of torpor-cli/tests/torch.
"""

import sys

from compiled import passes

if __name__ == "__main__":
    {"registered_nvcc": lambda: passes("registered.cu")}[sys.argv[1]]()
    print(f"{sys.argv[1]} passed")
