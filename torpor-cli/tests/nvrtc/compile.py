"""Compiles one source by the wheel's NVRTC once for each set of options that is given as an argument (`;` between sets), in
`THREADS` threads, and prints a line for each: return code, BLAKE2 of cubin and PTX, name of the kernel."""
import ctypes

from by_nvrtc import for_each_set, made, nvrtc, ok, short_hash, texts

SOURCE = rb"""
template<int N> struct Chain { __device__ static float run(float x, float y) { return Chain<N - 1>::run(x * y + N, y) * 1.01f / y; } };
template<> struct Chain<0> { __device__ static float run(float x, float y) { return sqrtf(x * y); } };
template<class T> __global__ void kernel(T *p) { p[threadIdx.x] = Chain<DEPTH>::run(p[threadIdx.x], p[threadIdx.x + 1]); }
"""


def hash_of(program, what):
    code = made(program, what)
    return short_hash(code) if code else "none"


def compiled(options):
    program, lowered = ctypes.c_void_p(), ctypes.c_char_p()
    ok("nvrtcCreateProgram", ctypes.byref(program), SOURCE, b"chain.cu", 0, None, None)
    ok("nvrtcAddNameExpression", program, b"kernel<float>")
    words = [b"-DDEPTH=6", *options.encode().split()]
    code = nvrtc.nvrtcCompileProgram(program, len(words), texts(words))
    if code:
        return f"{code} - - -"
    ok("nvrtcGetLoweredName", program, b"kernel<float>", ctypes.byref(lowered))
    line = f"{code} {hash_of(program, 'CUBIN')} {hash_of(program, 'PTX')} {lowered.value.decode()}"
    ok("nvrtcDestroyProgram", ctypes.byref(program))
    return line


for_each_set(compiled)
