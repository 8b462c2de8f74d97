"""Functions of CUDA by name, and the steps of a program that is watched: what scripts that use the driver have in common."""
import ctypes
import sys
from ctypes import byref, c_void_p

cuda, runtime = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL(None)


def call(name, *arguments, expected=0):
    """A function of the driver, or of the runtime, which must give this code."""
    code = getattr(runtime if name.startswith("cuda") else cuda, name)(*arguments)
    assert code == expected, (name, code, expected)


def made(name, *arguments, kind=c_void_p):
    """What a function stores at its first argument."""
    place = kind()
    call(name, byref(place), *arguments)
    return place


def begin():
    """Makes the first GPU's context current, and gives it."""
    call("cuInit", 0)
    context = made("cuDevicePrimaryCtxRetain", 0)
    call("cuCtxSetCurrent", context)
    return context


def step(name):
    """Says so and, if the script was told to wait, waits for a line: whoever runs it may move its memory meanwhile."""
    print(name, flush=True)
    if len(sys.argv) > 1:
        assert sys.stdin.readline()
