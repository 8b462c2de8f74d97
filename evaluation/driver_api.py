"""CUDA's driver API by ctypes, for the functions beside this file that bring kernels of their own."""

import ctypes

driver = ctypes.CDLL("libcuda.so.1")


class Failed(Exception):
    """A call of the driver returned a code."""

    @property
    def code(self):
        return self.args[0]


def call(name, *arguments):
    """One call; its failure is an exception."""
    code = getattr(driver, name)(*arguments)
    if code:
        raise Failed(code)


def made(name, *arguments, kind=ctypes.c_void_p):
    """What a call puts into its first argument."""
    value = kind()
    call(name, ctypes.byref(value), *arguments)
    return value


def enter():
    """Makes the context of the first GPU this thread's. Returns the GPU."""
    call("cuInit", 0)
    device = made("cuDeviceGet", 0, kind=ctypes.c_int)
    call("cuCtxSetCurrent", made("cuDevicePrimaryCtxRetain", device))
    return device


def allocate(size):
    """The address of so many bytes of device memory."""
    return made("cuMemAlloc_v2", ctypes.c_size_t(size), kind=ctypes.c_uint64).value


def launch(kernel, blocks, threads, *parameters, stream=None):
    """Launches a kernel; parameters are ctypes values."""
    pointers = (ctypes.c_void_p * max(1, len(parameters)))(*map(ctypes.addressof, parameters))
    call("cuLaunchKernel", kernel, blocks, 1, 1, threads, 1, 1, 0, stream, pointers, None)
