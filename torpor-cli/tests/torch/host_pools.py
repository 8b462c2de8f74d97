"""Memory pools of the host and of managed memory, as cuda.core's PinnedMemoryResource and ManagedMemoryResource use them. With
"conformance" without errors."""
import ctypes as c
import sys

from driver_calls import begin, call, made

INVALID, NOT_SUPPORTED = 1, 801
MIB = 1 << 20
PINNED, MANAGED = 1, 2
NOWHERE, DEVICE, HOST = 0, 1, 2
USED, THRESHOLD = 7, 4
size, u64, u32 = c.c_size_t, c.c_uint64, c.c_uint32


class Properties(c.Structure):
    _fields_ = [("type", c.c_int), ("handles", c.c_int), ("place", c.c_int), ("device", c.c_int), ("win32", c.c_void_p),
                ("most", size), ("usage", c.c_ushort), ("reserved", c.c_ubyte * 54)]


class Location(c.Structure):
    _fields_ = [("kind", c.c_int), ("id", c.c_int)]


class Access(c.Structure):
    _fields_ = [("place", Location), ("flags", c.c_int)]


def pool_at(name, kind, type):
    return made(name, c.byref(Location(kind, 0)), type)


def attribute(pool, which):
    value = u64()
    call("cuMemPoolGetAttribute", pool, which, c.byref(value))
    return value.value


def about(address, which, kind=u32):
    value = kind()
    call("cuPointerGetAttribute", c.byref(value), which, u64(address))
    return value.value


begin()
supported = c.c_int()
call("cuDeviceGetAttribute", c.byref(supported), 144, 0)
assert supported.value == 1, "cuda.core asks first"
stream = made("cuStreamCreate", 1)
for type, place in (PINNED, HOST), (MANAGED, NOWHERE):
    default = pool_at("cuMemGetDefaultMemPool", place, type)
    assert pool_at("cuMemGetMemPool", place, type).value == default.value
    assert default.value != pool_at("cuMemGetDefaultMemPool", DEVICE, PINNED).value
    own = made("cuMemPoolCreate", c.byref(Properties(type=type, place=place)))
    call("cuMemPoolSetAccess", own, c.byref(Access(Location(DEVICE, 0), 3)), size(1))
    call("cuMemPoolSetAttribute", own, THRESHOLD, c.byref(u64(1 << 40)))
    for pool in own, default:
        address = made("cuMemAllocFromPoolAsync", size(3 * MIB), pool, stream, kind=u64).value
        call("cuStreamSynchronize", stream)
        words = (u32 * 1000).from_address(address)
        words[:] = range(1000)
        call("cuMemsetD32Async", u64(address + 400), u32(7), size(100), stream)
        call("cuStreamSynchronize", stream)
        assert list(words) == [*range(100), *[7] * 100, *range(200, 1000)]
        assert about(address, 8) == (type == MANAGED) and about(address, 2) in (1, 2)
        assert about(address + 100, 17, u64) == pool.value, "whose it is"
        assert attribute(pool, USED) >= 3 * MIB
        call("cuMemFreeAsync", u64(address), stream)
        assert attribute(pool, USED) == 0
    again = made("cuMemAllocFromPoolAsync", size(3 * MIB), own, stream, kind=u64).value
    call("cuMemFree_v2", u64(again))
    assert attribute(own, USED) == 0
    call("cuMemSetMemPool", c.byref(Location(place, 0)), type, own)
    assert pool_at("cuMemGetMemPool", place, type).value == own.value
    kept = made("cuMemAllocFromPoolAsync", size(1000), own, stream, kind=u64).value
    call("cuStreamSynchronize", stream)
    call("cuMemPoolDestroy", own)
    assert pool_at("cuMemGetMemPool", place, type).value == default.value
    (u32 * 250).from_address(kept)[:] = range(250)
    call("cuMemFreeAsync", u64(kept), stream)
    call("cuStreamSynchronize", stream)
    if sys.argv[1:] == ["conformance"]:
        continue
    call("cuMemFreeAsync", u64(kept), stream, expected=INVALID)
    call("cuMemPoolDestroy", default, expected=INVALID)
    call("cuDeviceSetMemPool", 0, default, expected=INVALID)
    call("cuMemSetMemPool", c.byref(Location(DEVICE, 0)), PINNED, default, expected=INVALID)
    refused = INVALID if place == HOST else NOT_SUPPORTED
    call("cuMemPoolCreate", c.byref(c.c_void_p()), c.byref(Properties(type=type, place=place, handles=1)), expected=refused)
    call("cuStreamBeginCapture_v2", stream, 2)
    call("cuMemAllocFromPoolAsync", c.byref(u64()), size(4096), default, stream, expected=NOT_SUPPORTED)
    call("cuStreamEndCapture", stream, c.byref(c.c_void_p()))
print("host pools passed")
