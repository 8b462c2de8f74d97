"""Memory pools and allocation in the order of streams."""
import ctypes as c
import torch

torch.empty(1, device="cuda")
own = c.CDLL(None)  # the shim's names come first
MIB = 1 << 20
RELEASE_THRESHOLD, RESERVED, RESERVED_MOST, USED = 4, 5, 6, 7


def check(code):
    assert code == 0, code


def allocate(bytes, stream, pool=None):
    place = c.c_void_p()
    if pool is None:
        check(own.cudaMallocAsync(c.byref(place), c.c_size_t(bytes), stream))
    else:
        check(own.cudaMallocFromPoolAsync(c.byref(place), c.c_size_t(bytes), pool, stream))
    return place.value


def free(address, stream):
    check(own.cudaFreeAsync(c.c_void_p(address), stream))


def attribute(pool, code):
    value = c.c_uint64()
    check(own.cudaMemPoolGetAttribute(pool, code, c.byref(value)))
    return value.value


def set_threshold(pool, bytes):
    check(own.cudaMemPoolSetAttribute(pool, RELEASE_THRESHOLD, c.byref(c.c_uint64(bytes))))


def stream():
    made = c.c_void_p()
    check(own.cudaStreamCreateWithFlags(c.byref(made), 1))
    return made


class Properties(c.Structure):
    _fields_ = [("allocation", c.c_int), ("handles", c.c_int), ("kind", c.c_int), ("id", c.c_int), ("security", c.c_void_p),
                ("most_bytes", c.c_size_t), ("usage", c.c_ushort), ("reserved", c.c_ubyte * 54)]


def new_pool(**changes):
    properties = Properties(allocation=1, kind=1)
    for name, value in changes.items():
        setattr(properties, name, value)
    made = c.c_void_p()
    return own.cudaMemPoolCreate(c.byref(made), c.byref(properties)), made


one, two = stream(), stream()
default = c.c_void_p()
check(own.cudaDeviceGetDefaultMemPool(c.byref(default), 0))

# What a stream freed it gets back at once, another one only when that is done; nobody gets what is in use.
first = allocate(4 * MIB, one)
check(own.cudaMemsetAsync(c.c_void_p(first), 7, c.c_size_t(4 * MIB), one))
free(first, one)
assert allocate(4 * MIB, one) == first
free(first, one)
second = allocate(4 * MIB, two)
assert second != first
assert attribute(default, USED) == 4 * MIB and attribute(default, RESERVED) == 8 * MIB
assert own.cudaFreeAsync(c.c_void_p(first), one) == 1, "it was freed already"

# A synchronisation gives back what is beyond the threshold, which is none at first.
check(own.cudaStreamSynchronize(one))
assert attribute(default, RESERVED) == 4 * MIB
assert attribute(default, RESERVED_MOST) == 8 * MIB
set_threshold(default, 1 << 40)
free(second, two)
check(own.cudaDeviceSynchronize())
assert attribute(default, RESERVED) == 4 * MIB and attribute(default, USED) == 0
assert allocate(4 * MIB, one) == second, "that work is done"
free(second, one)
check(own.cudaMemPoolTrimTo(default, c.c_size_t(0)))
assert attribute(default, RESERVED) == 0
set_threshold(default, 0)

# So does one that has nothing to wait for any more, since a copy back waited already.
free(allocate(4 * MIB, one), one)
place = allocate(1000, one)
check(own.cudaMemcpyAsync((c.c_ubyte * 1000)(), c.c_void_p(place), c.c_size_t(1000), 2, one))
check(own.cudaStreamSynchronize(one))
assert attribute(default, RESERVED) < 4 * MIB
free(place, one)

# A cudaFree that fails leaves the program what it has: a host function must not call CUDA.
place, said = allocate(4 * MIB, one), []
refused = c.CFUNCTYPE(None, c.c_void_p)(lambda _: said.append(own.cudaFree(c.c_void_p(place))))
check(own.cudaLaunchHostFunc(one, refused, None))
check(own.cudaStreamSynchronize(one))
assert said == [800], said
free(place, one)

# Contents, small blocks, and cudaFree and cudaFreeAsync of what the other one allocated.
small = [allocate(1000, one) for _ in range(100)]
assert len(set(small)) == 100 and all(address % 256 == 0 for address in small)
host = (c.c_ubyte * 1000)()
for number, address in enumerate(small):
    check(own.cudaMemsetAsync(c.c_void_p(address), number, c.c_size_t(1000), one))
for number, address in enumerate(small):
    check(own.cudaMemcpyAsync(host, c.c_void_p(address), c.c_size_t(1000), 2, one))
    check(own.cudaStreamSynchronize(one))
    assert bytes(host) == bytes([number]) * 1000, number
for address in small[:50]:
    free(address, one)
for address in small[50:]:
    check(own.cudaFree(c.c_void_p(address)))
assert attribute(default, USED) == 0
plain = c.c_void_p()
check(own.cudaMalloc(c.byref(plain), c.c_size_t(3 * MIB)))
free(plain.value, one)
assert own.cudaFree(plain) == 1

# A pool of one's own, which is destroyed while the program has something of it.
code, pool = new_pool()
check(code)
kept = allocate(2 * MIB, one, pool)
check(own.cudaMemPoolDestroy(pool))
assert own.cudaMemPoolDestroy(pool) == 1 and own.cudaMemPoolTrimTo(pool, c.c_size_t(0)) == 1, "it is gone"
check(own.cudaMemsetAsync(c.c_void_p(kept), 9, c.c_size_t(2 * MIB), one))
free(kept, one)
assert own.cudaMemPoolDestroy(default) == 1
for wrong in {"handles": 2}, {"handles": 9}, {"kind": 4}, {"allocation": 3}:
    assert new_pool(**wrong)[0] == 801, wrong

# What pools keep is given up before memory runs out.
set_threshold(default, 1 << 40)
free_bytes, total_bytes = torch.cuda.mem_get_info()
half = free_bytes * 6 // 10
free(allocate(half, one), one)
other = allocate(half + 64 * MIB, two)
free(other, two)
assert own.cudaMallocAsync(c.byref(plain), c.c_size_t(total_bytes * 2), one) == 2
set_threshold(default, 0)
check(own.cudaDeviceSynchronize())
assert attribute(default, RESERVED) < 2 * MIB, "only small blocks may stay"

# What a capture allocates is its graph's.
check(own.cudaStreamBeginCapture(one, 0))
check(own.cudaMallocAsync(c.byref(plain), c.c_size_t(MIB), one))
check(own.cudaFreeAsync(plain, one))
graph = c.c_void_p()
check(own.cudaStreamEndCapture(one, c.byref(graph)))
check(own.cudaGraphDestroy(graph))
assert own.cudaFreeAsync(plain, one) == 1

print("pools passed")
