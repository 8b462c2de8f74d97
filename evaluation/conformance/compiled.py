"""Programs of CUDA C++ beside this file, for the workloads that are one: each runs on its own runtime and the shim's."""

import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def passes(source, *options):
    """Compiles it with each runtime and runs it; it must say that all was right."""
    sys.path.insert(0, str(HERE.parent))
    from nvcc import compile_cuda

    with tempfile.TemporaryDirectory() as folder:
        for runtime in ("static", "shared"):
            binary = pathlib.Path(folder) / runtime
            compile_cuda(HERE / source, binary, f"-cudart={runtime}", *options)
            done = subprocess.run([binary], capture_output=True, text=True, check=False)
            assert done.returncode == 0 and done.stdout == "right\n", (runtime, done.returncode, done.stdout, done.stderr)
