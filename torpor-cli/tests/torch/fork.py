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
print("fork passed")
