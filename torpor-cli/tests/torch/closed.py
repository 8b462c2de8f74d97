"""A program closes descriptors that it does not know, and has its own under their numbers: CUDA fails and says why."""
import ctypes
import os
import time

driver, place = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
assert driver.cuInit(0) == 0
assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(place), 0) == 0 and driver.cuCtxSetCurrent(place) == 0
assert driver.cuCtxSynchronize() == 0


def is_socket(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    except OSError:
        return False


# One that nothing can be read from, so it looks as a connection does that lasts.
reading, writing = os.pipe()
replaced = [number for number in map(int, os.listdir("/proc/self/fd")) if number > 2 and is_socket(number)]
assert replaced, "the lifeline is a socket"
for number in replaced:
    os.dup2(reading, number)
memory, deadline = ctypes.c_uint64(), time.monotonic() + 60


def allocates():
    return driver.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(4096))


# Until the server has seen the end of the connection it answers.
codes = [0]
while codes[-1] == 0 and time.monotonic() < deadline:
    codes.append(allocates())
codes = [codes[-1], allocates()]
assert codes == [46, 46], f"CUDA_ERROR_DEVICE_UNAVAILABLE: {codes}"
with open(os.environ["TORPOR_SHIM_LOG"]) as file:
    log = file.read()
assert "closed a descriptor that is not its own" in log and "server is gone" not in log, log
os.write(writing, b"mine")
assert os.read(replaced[0], 100) == b"mine", "the program's own pipe was not touched"
print("closed passed")
