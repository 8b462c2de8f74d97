"""Arrays, textures and surfaces, for `run`: a compiled program that compares them with the CPU, on its own runtime and the shim's.

    array_workloads.py arrays

Needs a compiler (evaluation/nvcc.py).
"""

import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def program():
    sys.path.insert(0, str(HERE.parent))
    from nvcc import compile_cuda

    with tempfile.TemporaryDirectory() as folder:
        for runtime in ("static", "shared"):
            binary = pathlib.Path(folder) / runtime
            compile_cuda(HERE / "arrays.cu", binary, f"-cudart={runtime}")
            done = subprocess.run([binary], capture_output=True, text=True, check=False)
            assert done.returncode == 0 and done.stdout == "right\n", (runtime, done.returncode, done.stdout, done.stderr)


if __name__ == "__main__":
    {"arrays": program}[sys.argv[1]]()
    print(f"{sys.argv[1]} passed")
