"""A device address that is none is an error, not a crash."""
import ctypes
import torch

mine = torch.arange(1000, device="cpu").cuda()
driver = ctypes.CDLL("libcuda.so.1")
host = ctypes.create_string_buffer(4096)
INVALID_VALUE, NOT_FOUND = 1, 500
end = mine.data_ptr() + (2 << 20)
for wild in (0, 0x1000, 0x1000_0000_0000 - 4096, 0x2000_0000_0000, end + (1 << 30), 2**64 - 1):
    address = ctypes.c_uint64(wild)
    codes = {driver.cuMemcpyHtoD_v2(address, host, ctypes.c_size_t(64)) or driver.cuCtxSynchronize(),
             driver.cuMemcpyDtoH_v2(host, address, ctypes.c_size_t(64)) or driver.cuCtxSynchronize(),
             driver.cuMemcpyDtoD_v2(address, ctypes.c_uint64(mine.data_ptr()), ctypes.c_size_t(64)) or driver.cuCtxSynchronize(),
             driver.cuMemsetD8_v2(address, 0, ctypes.c_size_t(64)) or driver.cuCtxSynchronize()}
    assert codes == {INVALID_VALUE}, (hex(wild), codes)
    assert driver.cuMemFree_v2(address) in (INVALID_VALUE,) or wild == 0
length = ctypes.c_size_t(3 << 20)
assert (driver.cuMemcpyDtoH_v2(ctypes.create_string_buffer(3 << 20), ctypes.c_uint64(mine.data_ptr()), length)
        or driver.cuCtxSynchronize()) == INVALID_VALUE, "longer than its segment"
assert torch.equal(mine.cpu(), torch.arange(1000))
print("wild pointers passed")
