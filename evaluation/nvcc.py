"""NVIDIA's compiler on this machine, for scripts that need CUDA C++ programs."""

import glob
import os
import pathlib
import shutil
import subprocess
import sys

# A machine code for the GPUs that are measured, and PTX for any other: for the simulated one too.
TARGETS = ["-gencode", "arch=compute_90,code=sm_90", "-gencode", "arch=compute_75,code=compute_75"]


def compiler():
    """The path of nvcc: $NVCC, that of the search path, or that of the newest toolkit in its usual place."""
    found = os.environ.get("NVCC") or shutil.which("nvcc")
    usual = sorted(glob.glob("/usr/local/cuda*/bin/nvcc"))
    if not found and not usual:
        sys.exit("nvcc is missing: put it on the PATH, or name it by NVCC")
    return pathlib.Path(found or usual[-1])


def compile_cuda(source, output, *options):
    """Compiles one file; ends the script, with what nvcc says, if that fails."""
    command = [compiler(), "-O2", "-std=c++17", *TARGETS, *options, "-o", output, source]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}")


def library_folders():
    """Folders where libcudart.so.13 may be: beside nvcc, and in PyTorch's packages."""
    toolkit = compiler().resolve().parent.parent
    folders = [toolkit / "lib64", toolkit / "lib", toolkit / "targets" / "x86_64-linux" / "lib"]
    folders += [pathlib.Path(entry) / "nvidia" / "cu13" / "lib" for entry in sys.path]
    return [str(folder) for folder in folders if list(folder.glob("libcudart.so*"))]


def link_options(folder):
    """Where nvcc finds libraries: beside itself, and a libcudart.so, which PyTorch's packages lack, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    libraries = [library for name in library_folders() for library in sorted(pathlib.Path(name).glob("libcudart.so.13*"))]
    if not libraries:
        sys.exit("no libcudart.so.13 beside nvcc or in PyTorch's packages")
    link = folder / "libcudart.so"
    link.unlink(missing_ok=True)
    link.symlink_to(libraries[0])
    return [f"-L{name}" for name in (folder, *library_folders())]
