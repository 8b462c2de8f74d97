"""Links by the wheel's nvJitLink once for each set of options that is given as an argument (`;` between sets), in `THREADS` threads,
and prints a line for each: return codes, BLAKE2 of what is made. `-lto` among the options links LTO-IR, else PTX."""
import ctypes
import glob
import hashlib
import os
import sys
import sysconfig
import threading

SOURCES = [
    rb"""extern __device__ float scaled(float x);
    extern "C" __global__ void kernel(float *p) { p[threadIdx.x] = scaled(p[threadIdx.x] / 3); }""",
    rb"""__device__ float scaled(float x) { return sqrtf(x) * 3 + 1 / x; }""",
]
# nvJitLinkInputType (nvJitLink.h)
PTX, LTO_IR = 2, 3
libraries = sysconfig.get_path("purelib") + "/nvidia/cu13/lib/"
# NVRTC finds it by name once it is loaded, as PyTorch does.
builtins = [ctypes.CDLL(path) for path in glob.glob(libraries + "libnvrtc-builtins.so.13.*")]
nvrtc = ctypes.CDLL(libraries + "libnvrtc.so.13")
linker = ctypes.CDLL(libraries + "libnvJitLink.so.13")


def ok(name, *arguments):
    code = getattr(nvrtc, name)(*arguments)
    assert code == 0, (name, code)


def texts(options):
    return (ctypes.c_char_p * len(options))(*options)


def compiled(source, what, options):
    program, length = ctypes.c_void_p(), ctypes.c_size_t()
    ok("nvrtcCreateProgram", ctypes.byref(program), source, b"part.cu", 0, None, None)
    ok("nvrtcCompileProgram", program, len(options), texts(options))
    ok(f"nvrtcGet{what}Size", program, ctypes.byref(length))
    code = ctypes.create_string_buffer(length.value)
    ok(f"nvrtcGet{what}", program, code)
    ok("nvrtcDestroyProgram", ctypes.byref(program))
    return code.raw


def linked(options, parts):
    words = options.encode().split()
    link, length = ctypes.c_void_p(), ctypes.c_size_t()
    kind = LTO_IR if b"-lto" in words else PTX
    codes = [linker.nvJitLinkCreate(ctypes.byref(link), len(words), texts(words))]
    for part in parts[kind]:
        codes.append(linker.nvJitLinkAddData(link, kind, part, ctypes.c_size_t(len(part)), b"part"))
    codes.append(linker.nvJitLinkComplete(link))
    what = "Ptx" if b"-ptx" in words else "Cubin"
    codes.append(getattr(linker, f"nvJitLinkGetLinked{what}Size")(link, ctypes.byref(length)))
    code = ctypes.create_string_buffer(length.value)
    codes.append(getattr(linker, f"nvJitLinkGetLinked{what}")(link, code))
    codes.append(linker.nvJitLinkDestroy(ctypes.byref(link)))
    return f"{''.join(map(str, codes))} {hashlib.blake2s(code.raw, digest_size=8).hexdigest()}"


parts = {
    PTX: [compiled(source, "PTX", [b"-arch=compute_90", b"-rdc=true"]) for source in SOURCES],
    LTO_IR: [compiled(source, "LTOIR", [b"-arch=sm_90", b"-rdc=true", b"-dlto"]) for source in SOURCES],
}
sets = sys.argv[1].split(";")
lines = [None] * len(sets)
left = iter(range(len(sets)))
lock = threading.Lock()


def work():
    while True:
        with lock:
            at = next(left, None)
        if at is None:
            return
        lines[at] = linked(sets[at], parts)


threads = [threading.Thread(target=work) for _ in range(int(os.environ.get("THREADS", "1")))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for options, line in zip(sets, lines):
    print(options, line)
