"""Batches of boxes, as CUDA 13 and as CUDA 12.8 have them: between memory of the host and of the device and arrays, which copy is wrong,
and what is captured. With "conformance" without these two, of which a driver may think otherwise."""
import ctypes as c
import sys

from driver_calls import begin, call, made

SUCCESS, INVALID, HANDLE, CAPTURING = 0, 1, 400, 900
POINTER, ARRAY = 1, 2
NONE_OF_THEM = c.c_size_t(-1).value
WORD = 3  # CU_AD_FORMAT_UNSIGNED_INT32
u64, u32, size = c.c_uint64, c.c_uint32, c.c_size_t


class Operand(c.Structure):
    _fields_ = [("type", u32), ("words", u64 * 4)]


class Operation(c.Structure):
    _fields_ = [("source", Operand), ("destination", Operand), ("extent", u64 * 3), ("order", u32), ("flags", u32)]


class Descriptor(c.Structure):
    _fields_ = [("width", size), ("height", size), ("depth", size), ("format", u32), ("channels", u32), ("flags", u32)]


def memory(address, row=0, rows=0):
    return Operand(POINTER, (u64 * 4)(address, row, rows, 0))


def inside(array, x=0, y=0, z=0):
    return Operand(ARRAY, (u64 * 4)(array.value, x, y, z))


def copied(source, destination, extent, order=1, flags=0):
    return Operation(source, destination, (u64 * 3)(*extent), order, flags)


def batch(stream, *operations, expected=SUCCESS, by="cuMemcpy3DBatchAsync_v2", flags=0):
    call(by, size(len(operations)), (Operation * len(operations))(*operations), u64(flags), stream, expected=expected)


def failing(stream, *operations, expected=INVALID, flags=0):
    """As CUDA 12.8 has it: gives which copy it was."""
    failed = size(4711)
    call("cuMemcpy3DBatchAsync", size(len(operations)), (Operation * len(operations))(*operations), c.byref(failed), u64(flags), stream,
         expected=expected)
    return failed.value


def back(address, count):
    words = (u32 * count)()
    call("cuCtxSynchronize")
    call("cuMemcpyDtoH_v2", words, u64(address), size(4 * count))
    return list(words)


def clear():
    call("cuMemsetD8_v2", u64(device), 0, size(1 << 20))
    call("cuCtxSynchronize")


begin()
stream = made("cuStreamCreate", 1)
device = made("cuMemAlloc_v2", size(1 << 20), kind=u64).value
pinned = made("cuMemAllocHost_v2", size(1 << 16)).value
numbers = (u32 * 1000).from_address(pinned)
numbers[:] = range(1000)
pageable = (u32 * 1000)(*range(5000, 6000))
cube = made("cuArray3DCreate_v2", c.byref(Descriptor(8, 4, 3, WORD, 1, 0)))
pairs = made("cuArray3DCreate_v2", c.byref(Descriptor(8, 4, 3, WORD, 2, 0)))

# Blocks of a cache that lie apart, gathered by one call from page-locked and from the program's own memory, and scattered again.
clear()
for by in ("cuMemcpy3DBatchAsync_v2", "cudaMemcpy3DBatchAsync"):
    batch(stream, copied(memory(pinned, 40, 5), memory(device), (16, 3, 2)),
          copied(memory(c.addressof(pageable), 100), memory(device + 4096, 32), (8, 4, 1), order=2), by=by)
    rows = [[10 * (5 * slice + row) + column for column in range(4)] for slice in range(2) for row in range(3)]
    assert back(device, 24) == sum(rows, []), by
    pitched = [[5000 + 25 * row, 5001 + 25 * row, 0, 0, 0, 0, 0, 0] for row in range(4)]
    assert back(device + 4096, 32) == sum(pitched, []), by
    clear()
batch(stream, *[copied(memory(pinned + 400 * n), memory(device + 1024 * n), (400, 1, 1)) for n in range(10)])
batch(stream, *[copied(memory(device + 1024 * n), memory(pinned + 400 * (9 - n)), (40, 10, 1)) for n in range(10)])
call("cuStreamSynchronize", stream)
assert list(numbers) == [100 * (9 - n) + k for n in range(10) for k in range(100)]
batch(stream, copied(memory(device, 256, 2), memory(c.addressof(pageable)), (8, 2, 2)))
call("cuStreamSynchronize", stream)
assert list(pageable[:8]) == [0, 1, 64, 65, 0, 0, 0, 0]

# With an array lengths are in its elements; without one in bytes.
numbers[:] = range(1000)
batch(stream, copied(memory(pinned), inside(cube), (8, 4, 3)))
batch(stream, copied(inside(cube, 2, 1, 1), memory(device + 8192, 6), (4, 2, 2)),
      copied(inside(cube, 7, 3, 2), memory(pinned + 3996), (1, 1, 1)))
expected = [[32 * slice + 8 * row + column for column in range(2, 6)] for slice in (1, 2) for row in (1, 2)]
got = back(device + 8192, 24)
assert [got[6 * row:6 * row + 4] for row in range(4)] == expected and numbers[999] == 95
batch(stream, copied(memory(c.addressof(pageable)), inside(pairs, 1, 0, 0), (2, 1, 1)))
batch(stream, copied(inside(pairs, 1, 0, 0), memory(device), (2, 1, 1)))
assert back(device, 4) == list(pageable[:4])

if sys.argv[1:] == ["conformance"]:
    sys.exit(print("boxes passed"))

# Which copy is wrong: none is made then.
right = copied(memory(pinned), memory(device), (16, 1, 1))
clear()
nowhere, gone = memory(0), inside(c.c_void_p(4711))
wrong = [copied(memory(pinned), memory(device), (0, 1, 1)), copied(memory(pinned), memory(device), (4, 1, 0)),
         copied(memory(pinned, 15), memory(device), (16, 1, 1)), copied(memory(pinned, 16, 1), memory(device), (16, 2, 1)),
         copied(memory(pinned), memory(device), (16, 1, 1), order=0), copied(memory(pinned), memory(device), (16, 1, 1), order=4),
         copied(nowhere, memory(device), (16, 1, 1)), copied(memory(pinned), nowhere, (16, 1, 1)),
         copied(inside(cube), inside(pairs), (1, 1, 1)), copied(Operand(3, (u64 * 4)(pinned)), memory(device), (16, 1, 1))]
for each in wrong:
    assert failing(stream, right, each) == 1, list(each.extent)
    assert failing(stream, each, right) == 0
    batch(stream, right, each, expected=INVALID, by="cudaMemcpy3DBatchAsync")
assert failing(stream, right, copied(gone, memory(device), (1, 1, 1)), expected=HANDLE) == 1
assert back(device, 4) == [0] * 4
assert failing(stream) == failing(stream, right, flags=1) == failing(None, right) == NONE_OF_THEM
batch(stream, right, expected=INVALID, flags=1)
batch(None, right, expected=INVALID)
for late in (copied(inside(cube, 5, 0, 0), memory(device), (4, 1, 1)), copied(memory(pinned), memory(device), (1 << 63, 1 << 63, 1))):
    assert failing(stream, right, late) == 1, "what is found when it is its turn"

# As lists of copies are: captured, but for arrays.
call("cuStreamBeginCapture_v2", stream, 2)
batch(stream, right, copied(memory(pinned + 64), memory(device + 256, 32), (8, 2, 1)))
graph = c.c_void_p()
call("cuStreamEndCapture", stream, c.byref(graph))
ready = made("cuGraphInstantiateWithFlags", graph, u64(0))
assert back(device, 1) == [0]
call("cuMemsetD8_v2", u64(device), 9, size(1024))
call("cuCtxSynchronize")
call("cuGraphLaunch", ready, stream)
assert back(device, 4) == [0, 1, 2, 3] and back(device + 256, 10) == [16, 17] + [0x09090909] * 6 + [18, 19]
call("cuStreamBeginCapture_v2", stream, 2)
batch(stream, copied(memory(pinned), inside(cube), (1, 1, 1)), expected=CAPTURING)
print("boxes passed")
