"""cuBLAS and cuDNN make their handles on the device; a kernel that cannot run there is an error with a name."""
import ctypes
import torch

torch.empty(1, device="cuda")
assert torch.cuda.current_blas_handle() != 0
def library(name):
    with open("/proc/self/maps") as maps:
        return ctypes.CDLL(next(line.split()[-1] for line in maps if name in line))
cudnn = library("libcudnn.so.9")
handle = ctypes.c_void_p()
status = cudnn.cudnnCreate(ctypes.byref(handle))
assert status == 0 and handle.value, status
assert cudnn.cudnnDestroy(handle) == 0
cublas = library("libcublas.so")
status = cublas.cublasCreate_v2(ctypes.byref(handle))
assert status == 0 and handle.value, status
assert cublas.cublasDestroy_v2(handle) == 0
try:
    print((torch.ones(10, device="cuda") + 1).cpu())
    raise SystemExit("a cubin was executed by the simulated GPU")
except RuntimeError as error:
    print("refused as it should be:", str(error).splitlines()[0])
print("libraries passed")
