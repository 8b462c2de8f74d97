"""The child of a process that used CUDA gets the error that NVIDIA's driver gives it; the parent goes on."""
import ctypes
import os
import torch

tensor = torch.arange(1000).cuda()
driver = ctypes.CDLL("libcuda.so.1")
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    count = ctypes.c_int()
    codes = [driver.cuInit(0), driver.cuDeviceGetCount(ctypes.byref(count)), driver.cuCtxSynchronize()]
    os.write(writing, repr(codes).encode())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.read(reading, 100) == b"[3, 3, 3]", "CUDA_ERROR_NOT_INITIALIZED"
assert torch.equal(tensor.cpu(), torch.arange(1000))

# A program may close descriptors that it does not know, and have its own under their numbers: a fork does not touch those.
own = os.open("/dev/null", os.O_RDWR)


def is_socket(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    except OSError:
        return False


reading, writing = os.pipe()
replaced = [number for number in map(int, os.listdir("/proc/self/fd")) if number > 2 and is_socket(number)]
assert replaced, "the lifeline is a socket"
for number in replaced:
    os.dup2(own, number)
child = os.fork()
if child == 0:
    for number in replaced:
        os.fstat(number)
    os.write(writing, b"all there")
    os._exit(0)
os.waitpid(child, 0)
os.close(writing)
assert os.read(reading, 100) == b"all there"
print("fork passed")
