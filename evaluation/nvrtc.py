"""NVIDIA's compiler and linker as libraries (NVRTC, nvJitLink), by ctypes, for functions that compile code themselves."""

import ctypes
import glob
import pathlib
import sys

# nvJitLinkInputType
PTX, LTO_IR = 2, 3


def _library(name):
    """That of PyTorch's packages, or of the toolkit."""
    folders = [pathlib.Path(entry) / "nvidia" / "cu13" / "lib" for entry in sys.path]
    folders.append(pathlib.Path("/usr/local/cuda/lib64"))
    found = [path for folder in folders for path in sorted(glob.glob(str(folder / name)))]
    if not found:
        sys.exit(f"{name} is neither in PyTorch's packages nor in /usr/local/cuda")
    return ctypes.CDLL(found[0])


def _words(options):
    options = [option.encode() for option in options]
    return len(options), (ctypes.c_char_p * len(options))(*options)


def _ok(code, what, log=b""):
    if code:
        raise RuntimeError(f"{what}: {code} {log.decode(errors='replace')}")


def compiled(source, what, *options):
    """What becomes of CUDA C++: its `PTX`, `CUBIN` or `LTOIR`."""
    # NVRTC finds it by name once it is loaded.
    _library("libnvrtc-builtins.so.13.*")
    nvrtc, program, size = _library("libnvrtc.so.13"), ctypes.c_void_p(), ctypes.c_size_t()
    _ok(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"source.cu", 0, None, None), "nvrtcCreateProgram")
    code = nvrtc.nvrtcCompileProgram(program, *_words(options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    _ok(code, "nvrtcCompileProgram", log.value)
    _ok(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), what)
    made = ctypes.create_string_buffer(size.value)
    _ok(getattr(nvrtc, f"nvrtcGet{what}")(program, made), what)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return made.raw


def linked(kind, inputs, what, *options):
    """What nvJitLink makes of inputs of a kind: `Cubin` or `Ptx`."""
    linker, link, size = _library("libnvJitLink.so.13"), ctypes.c_void_p(), ctypes.c_size_t()
    _ok(linker.nvJitLinkCreate(ctypes.byref(link), *_words(options)), "nvJitLinkCreate")
    for number, data in enumerate(inputs):
        code = linker.nvJitLinkAddData(link, kind, data, ctypes.c_size_t(len(data)), b"input %d" % number)
        _ok(code, "nvJitLinkAddData", _log(linker, link))
    _ok(linker.nvJitLinkComplete(link), "nvJitLinkComplete", _log(linker, link))
    _ok(getattr(linker, f"nvJitLinkGetLinked{what}Size")(link, ctypes.byref(size)), what)
    made = ctypes.create_string_buffer(size.value)
    _ok(getattr(linker, f"nvJitLinkGetLinked{what}")(link, made), what)
    linker.nvJitLinkDestroy(ctypes.byref(link))
    return made.raw


def _log(linker, link):
    size = ctypes.c_size_t()
    linker.nvJitLinkGetErrorLogSize(link, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value + 1)
    linker.nvJitLinkGetErrorLog(link, log)
    return log.value
