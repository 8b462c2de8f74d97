"""Programs that link their kernels at run time, for `run`: what the driver's linker or nvJitLink makes of several inputs is loaded and
launched, and its numbers and variables are those that Python computes.

    link_workloads.py link_ptx | link_cubin | link_fatbin | link_library | link_nvjitlink | link_lto | link_lto_ptx

link_fatbin and link_library need a compiler (evaluation/nvcc.py), all but link_ptx need NVRTC (evaluation/nvrtc.py).
"""

import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import ctypes  # noqa: E402

from driver_api import Failed, enter, made  # noqa: E402
from linking import CUBIN, FATBIN, KERNEL, LIBRARY, OBJECT, PTX, SCRAMBLE, Advancing, link  # noqa: E402

SOURCES = [HERE / "advance.cu", HERE / "scramble.cu"]


def architecture(device):
    """The GPU's, as compilers name it: 90."""
    return "".join(str(made("cuDeviceGetAttribute", which, device, kind=ctypes.c_int).value) for which in (75, 76))


def check(image):
    """Two modules of an image, which have variables of their own, in turns."""
    modules = Advancing(image), Advancing(image)
    for factor in (3, 5, 1 << 31, 0xFFFFFFFF):
        for module in modules:
            module.advance(factor)


def texts(_):
    for inputs in ((KERNEL, SCRAMBLE), (SCRAMBLE, KERNEL + b"\0")):
        check(link(*((PTX, text) for text in inputs)))
    unrelated = KERNEL.replace(b"advance", b"another").replace(b"factor", b"other_factor")
    check(link((PTX, KERNEL), (PTX, unrelated), (PTX, SCRAMBLE)))
    for inputs in ((KERNEL, unrelated), (KERNEL, SCRAMBLE, SCRAMBLE)):
        try:
            link(*((PTX, text) for text in inputs))
        except Failed:
            continue
        raise AssertionError("a function is missing, or there twice")


def cubin(device):
    from nvrtc import compiled
    compiled_here = compiled(SOURCES[1].read_bytes(), "CUBIN", f"-arch=sm_{architecture(device)}", "-rdc=true")
    check(link((PTX, KERNEL), (CUBIN, compiled_here)))
    # Nothing of PTX: the kernel is machine code as well.
    both = [compiled(source.read_bytes(), "CUBIN", f"-arch=sm_{architecture(device)}", "-rdc=true") for source in SOURCES]
    check(link(*((CUBIN, one) for one in both)))


def fatbin(_):
    from nvcc import compile_cuda
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / f"{source.stem}.fatbin" for source in SOURCES]
        for source, file in zip(SOURCES, files):
            compile_cuda(source, file, "-fatbin", "-rdc=true")
        check(link((PTX, KERNEL), (FATBIN, files[1].read_bytes())))
        check(link(*((FATBIN, file) for file in files)))


def library(_):
    from nvcc import compile_cuda
    with tempfile.TemporaryDirectory() as folder:
        archive, thing = pathlib.Path(folder) / "libscramble.a", pathlib.Path(folder) / "scramble.o"
        compile_cuda(SOURCES[1], archive, "-lib", "-rdc=true")
        compile_cuda(SOURCES[1], thing, "-dc")
        check(link((PTX, KERNEL), (LIBRARY, archive)))
        check(link((PTX, KERNEL), (LIBRARY, archive.read_bytes())))
        check(link((PTX, KERNEL), (OBJECT, thing.read_bytes())))


def nvjitlink(device):
    import nvrtc
    scramble = nvrtc.compiled(SOURCES[1].read_bytes(), "PTX", "-arch=compute_75", "-rdc=true")
    check(nvrtc.linked(nvrtc.PTX, [KERNEL, scramble], "Cubin", f"-arch=sm_{architecture(device)}"))


def lto(device, what="Cubin", *options):
    import nvrtc
    target = f"-arch=sm_{architecture(device)}"
    parts = [nvrtc.compiled(source.read_bytes(), "LTOIR", target, "-rdc=true", "-dlto") for source in SOURCES]
    check(nvrtc.linked(nvrtc.LTO_IR, parts, what, target, "-lto", *options))


def lto_ptx(device):
    lto(device, "Ptx", "-ptx")


WORKLOADS = {"link_ptx": texts, "link_cubin": cubin, "link_fatbin": fatbin, "link_library": library,
             "link_nvjitlink": nvjitlink, "link_lto": lto, "link_lto_ptx": lto_ptx}

if __name__ == "__main__":
    WORKLOADS[sys.argv[1]](enter())
    print(f"{sys.argv[1]} passed")
