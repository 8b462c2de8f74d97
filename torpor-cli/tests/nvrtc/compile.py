"""Compiles one source by the wheel's NVRTC once for each set of options that is given as an argument (`;` between sets), in
`THREADS` threads, and prints a line for each: return code, BLAKE2 of cubin and PTX, name of the kernel."""
import ctypes
import glob
import hashlib
import os
import sys
import sysconfig
import threading

SOURCE = rb"""
template<int N> struct Chain { __device__ static float run(float x, float y) { return Chain<N - 1>::run(x * y + N, y) * 1.01f / y; } };
template<> struct Chain<0> { __device__ static float run(float x, float y) { return sqrtf(x * y); } };
template<class T> __global__ void kernel(T *p) { p[threadIdx.x] = Chain<DEPTH>::run(p[threadIdx.x], p[threadIdx.x + 1]); }
"""
libraries = sysconfig.get_path("purelib") + "/nvidia/cu13/lib/"
# NVRTC finds it by name once it is loaded, as PyTorch does.
builtins = [ctypes.CDLL(path) for path in glob.glob(libraries + "libnvrtc-builtins.so.13.*")]
nvrtc = ctypes.CDLL(libraries + "libnvrtc.so.13")


def ok(name, *arguments):
    code = getattr(nvrtc, name)(*arguments)
    assert code == 0, (name, code)


def made(program, what):
    length = ctypes.c_size_t()
    ok(f"nvrtcGet{what}Size", program, ctypes.byref(length))
    if length.value == 0:
        return "none"
    code = ctypes.create_string_buffer(length.value)
    ok(f"nvrtcGet{what}", program, code)
    return hashlib.blake2s(code.raw, digest_size=8).hexdigest()


def compiled(options):
    program, lowered = ctypes.c_void_p(), ctypes.c_char_p()
    ok("nvrtcCreateProgram", ctypes.byref(program), SOURCE, b"chain.cu", 0, None, None)
    ok("nvrtcAddNameExpression", program, b"kernel<float>")
    words = [b"-DDEPTH=6", *options.encode().split()]
    code = nvrtc.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words))
    if code:
        return f"{code} - - -"
    ok("nvrtcGetLoweredName", program, b"kernel<float>", ctypes.byref(lowered))
    line = f"{code} {made(program, 'CUBIN')} {made(program, 'PTX')} {lowered.value.decode()}"
    ok("nvrtcDestroyProgram", ctypes.byref(program))
    return line


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
        lines[at] = compiled(sets[at])


threads = [threading.Thread(target=work) for _ in range(int(os.environ.get("THREADS", "1")))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for options, line in zip(sets, lines):
    print(options, line)
