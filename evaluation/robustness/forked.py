"""What the child of a process that used CUDA is told by the driver API."""
import ctypes
import os

driver = ctypes.CDLL("libcuda.so.1")
count, context = ctypes.c_int(), ctypes.c_void_p()
assert driver.cuInit(0) == 0
assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert driver.cuCtxSetCurrent(context) == 0
address = ctypes.c_uint64()
assert driver.cuMemAlloc_v2(ctypes.byref(address), 1 << 20) == 0
if os.fork() == 0:
    print([driver.cuInit(0), driver.cuDeviceGetCount(ctypes.byref(count)),
           driver.cuMemAlloc_v2(ctypes.byref(address), 1 << 20), driver.cuCtxSynchronize()], flush=True)
    os._exit(0)
os.wait()
assert driver.cuCtxSynchronize() == 0
