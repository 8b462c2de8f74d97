"""The driver's virtual memory API, as far as the workloads here use it: reserve, create, map, unmap."""
import ctypes

import torch

GRANULE = 2 << 20


class Property(ctypes.Structure):
    """`CUmemAllocationProp` of memory of device 0."""

    _fields_ = [("type", ctypes.c_int), ("handles", ctypes.c_int), ("place", ctypes.c_int), ("device", ctypes.c_int),
                ("win32", ctypes.c_void_p), ("flags", ctypes.c_ubyte * 8)]


class Access(ctypes.Structure):
    """`CUmemAccessDesc`"""

    _fields_ = [("place", ctypes.c_int), ("device", ctypes.c_int), ("flags", ctypes.c_int)]


class Bytes:
    """What `torch.as_tensor` wants to know of memory that is not its own."""

    def __init__(self, address, count):
        self.__cuda_array_interface__ = {"shape": (count,), "typestr": "|u1", "data": (address, False), "version": 3}


class Mapped:
    """A tensor over memory that can be given up, and taken again at the same addresses."""

    def __init__(self, tensor):
        """With the contents of a tensor."""
        self.driver = ctypes.CDLL("libcuda.so.1")
        torch.cuda.current_stream()
        used = tensor.numel() * tensor.element_size()
        self.bytes = -(-used // GRANULE) * GRANULE
        self.address = ctypes.c_uint64()
        self.call("cuMemAddressReserve", ctypes.byref(self.address), ctypes.c_size_t(self.bytes), ctypes.c_size_t(0),
                  ctypes.c_uint64(0), ctypes.c_uint64(0))
        self.map()
        flat = torch.as_tensor(Bytes(self.address.value, used), device="cuda")
        self.tensor = flat.view(tensor.dtype).view(tensor.shape)
        self.tensor.copy_(tensor)
        self.kept = None

    def call(self, name, *arguments):
        code = getattr(self.driver, name)(*arguments)
        assert code == 0, f"{name}: {code}"

    def map(self):
        handle, length = ctypes.c_uint64(), ctypes.c_size_t(self.bytes)
        self.call("cuMemCreate", ctypes.byref(handle), length, ctypes.byref(Property(type=1, place=1)), ctypes.c_uint64(0))
        self.call("cuMemMap", self.address, length, ctypes.c_size_t(0), handle, ctypes.c_uint64(0))
        self.call("cuMemSetAccess", self.address, length, ctypes.byref(Access(1, 0, 3)), ctypes.c_size_t(1))
        self.call("cuMemRelease", handle)

    def keep_pinned(self):
        """From now on `sleep` keeps the contents in page-locked memory, as engines do."""
        self.kept = torch.empty_like(self.tensor, device="cpu", pin_memory=True)

    def sleep(self):
        """Keeps the contents in host memory, and gives the device's up."""
        torch.cuda.synchronize()
        if self.kept is None:
            self.kept = self.tensor.cpu()
        else:
            self.kept.copy_(self.tensor, non_blocking=True)
            torch.cuda.synchronize()
        self.call("cuMemUnmap", self.address, ctypes.c_size_t(self.bytes))

    def wake(self):
        self.map()
        self.tensor.copy_(self.kept, non_blocking=self.kept.is_pinned())
