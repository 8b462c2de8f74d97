"""Prints what a call costs the thread that makes it. Run by `run` beside this file; argument: a libcudart.so.13."""
import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile

CALLS = ["__cudaLaunchKernel", "cudaLaunchKernel", "cudaLaunchKernelExC", "cudaEventRecord", "cudaStreamIsCapturing",
         "cudaGetDevice", "cudaGetLastError"]

runtime = sys.argv[1]
library = os.path.join(tempfile.mkdtemp(), "liblaunchcost.so")
source = pathlib.Path(__file__).with_suffix(".c")
subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source, runtime,
                "-Wl,-rpath," + os.path.dirname(runtime)], check=True)
measure = ctypes.CDLL(library).launch_cost
measure.restype = ctypes.c_double
for number, name in enumerate(CALLS):
    least = ctypes.c_double()
    median = measure(number, 100, 300, ctypes.byref(least))
    if median < 0:
        sys.exit(f"{name} failed")
    print(f"{name:24}{median:8.1f} ns in the median, {least.value:.1f} ns at least")
