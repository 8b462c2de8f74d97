"""Virtual memory management by ctypes, in a context that is current."""
import ctypes as c

MIB = 1 << 20
GRANULE = 2 * MIB
REF = c.byref
own = c.CDLL("libcuda.so.1")


class Property(c.Structure):
    _fields_ = [("type", c.c_int), ("handles", c.c_int), ("place", c.c_int), ("device", c.c_int), ("win32", c.c_void_p),
                ("flags", c.c_ubyte * 8)]


class Access(c.Structure):
    _fields_ = [("place", c.c_int), ("device", c.c_int), ("flags", c.c_int)]


class Place(c.Structure):
    _fields_ = [("place", c.c_int), ("device", c.c_int)]


DEVICE = Property(type=1, handles=1, place=1)
u64, size = c.c_uint64, c.c_size_t


def reserve(bytes, alignment=0, wanted=0):
    address = u64()
    return own.cuMemAddressReserve(REF(address), size(bytes), size(alignment), u64(wanted), u64(0)), address.value


def create(bytes, wanted=DEVICE):
    handle = u64()
    return own.cuMemCreate(REF(handle), size(bytes), REF(wanted), u64(0)), handle.value


def place(address, bytes, handle, offset=0):
    return own.cuMemMap(u64(address), size(bytes), size(offset), u64(handle), u64(0))


def give_access(address, bytes, flags=3, device=0):
    return own.cuMemSetAccess(u64(address), size(bytes), REF(Access(1, device, flags)), size(1))


def unmap(address, bytes):
    return own.cuMemUnmap(u64(address), size(bytes))


def release(handle):
    return own.cuMemRelease(u64(handle))


def ok(code, *values):
    if isinstance(code, tuple):
        code, *values = code
    assert code == 0, code
    return values[0] if values else None


def write(address, words):
    ok(own.cuMemcpyHtoD_v2(u64(address), (c.c_uint32 * len(words))(*words), size(4 * len(words))))


def read(address, count):
    words = (c.c_uint32 * count)()
    ok(own.cuMemcpyDtoH_v2(words, u64(address), size(4 * count)))
    return list(words)


ok(own.cuInit(0))
context = c.c_void_p()
ok(own.cuDevicePrimaryCtxRetain(REF(context), 0))
ok(own.cuCtxSetCurrent(context))
