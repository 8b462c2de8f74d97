"""Links by the wheel's nvJitLink once for each set of options that is given as an argument (`;` between sets), in `THREADS` threads,
and prints a line for each: return codes, BLAKE2 of what is made. `-lto` among the options links LTO-IR, else PTX."""
import ctypes

from by_nvrtc import LIBRARIES, for_each_set, made, ok, short_hash, texts

SOURCES = [
    rb"""extern __device__ float scaled(float x);
    extern "C" __global__ void kernel(float *p) { p[threadIdx.x] = scaled(p[threadIdx.x] / 3); }""",
    rb"""__device__ float scaled(float x) { return sqrtf(x) * 3 + 1 / x; }""",
]
# nvJitLinkInputType (nvJitLink.h)
PTX, LTO_IR = 2, 3
linker = ctypes.CDLL(LIBRARIES + "libnvJitLink.so.13")


def compiled(source, what, options):
    program = ctypes.c_void_p()
    ok("nvrtcCreateProgram", ctypes.byref(program), source, b"part.cu", 0, None, None)
    ok("nvrtcCompileProgram", program, len(options), texts(options))
    code = made(program, what)
    ok("nvrtcDestroyProgram", ctypes.byref(program))
    return code


def linked(options):
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
    return f"{''.join(map(str, codes))} {short_hash(code.raw)}"


parts = {
    PTX: [compiled(source, "PTX", [b"-arch=compute_90", b"-rdc=true"]) for source in SOURCES],
    LTO_IR: [compiled(source, "LTOIR", [b"-arch=sm_90", b"-rdc=true", b"-dlto"]) for source in SOURCES],
}
for_each_set(linked)
