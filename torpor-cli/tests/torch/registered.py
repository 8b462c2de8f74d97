"""Memory that the program already has becomes reachable for the device, keeps its contents and its address."""
import ctypes
import torch

torch.empty(1, device="cuda")
tensor = torch.arange(3_000_000, dtype=torch.float32)
runtime = torch.cuda.cudart()
address, length = tensor.data_ptr(), tensor.numel() * 4
assert runtime.cudaHostRegister(address, length, 0) == runtime.cudaError.success
assert tensor.data_ptr() == address and tensor.is_pinned()
assert torch.equal(tensor, torch.arange(3_000_000, dtype=torch.float32))
on_device = tensor.to("cuda", non_blocking=True)
torch.cuda.synchronize()
tensor.fill_(-1)
tensor.copy_(on_device, non_blocking=True)
torch.cuda.synchronize()
assert torch.equal(tensor, torch.arange(3_000_000, dtype=torch.float32))
driver = ctypes.CDLL("libcuda.so.1")
assert driver.cuMemHostRegister_v2(ctypes.c_uint64(address), ctypes.c_size_t(length), 0) == 712, "already registered"
assert runtime.cudaHostUnregister(address) == runtime.cudaError.success
assert not tensor.is_pinned()
assert torch.equal(tensor, torch.arange(3_000_000, dtype=torch.float32))
tensor += 1
assert tensor[0] == 1
assert driver.cuMemHostUnregister(ctypes.c_uint64(address)) == 713, "not registered any more"
print("registered passed")
