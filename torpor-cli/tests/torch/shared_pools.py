"""Memory pools of other processes by ctypes: what both sides write in their blocks, who frees what, and the errors; evicted between
steps. As cuda-samples' streamOrderedAllocationIPC does it, and cuda.core. With "conformance" without what a driver leaves open: what
programs must not do, and which error it is."""
import ctypes as c
import os
import socket
import sys

from driver_calls import begin, call, cuda, made, runtime
from leaving import away
from processes import Other, serve_if_asked

MIB = 1 << 20
INVALID, OUT_OF_MEMORY, NOT_SUPPORTED = 1, 2, 801
REF = c.byref
u64, size, u32 = c.c_uint64, c.c_size_t, c.c_uint
DESCRIPTOR, FABRIC = 1, 8


class Properties(c.Structure):
    _fields_ = [("type", c.c_int), ("handles", c.c_int), ("place", c.c_int), ("device", c.c_int), ("win32", c.c_void_p),
                ("most", size), ("usage", c.c_ushort), ("reserved", c.c_ubyte * 54)]


def new_pool(handles=DESCRIPTOR, most=0):
    pool = c.c_void_p()
    code = cuda.cuMemPoolCreate(REF(pool), REF(Properties(type=1, handles=handles, place=1, most=most)))
    return code, pool.value


def block(pool, bytes, stream):
    address = u64()
    return cuda.cuMemAllocFromPoolAsync(REF(address), size(bytes), c.c_void_p(pool), c.c_void_p(stream)), address.value


def export_pool(pool, kind=DESCRIPTOR, flags=0):
    descriptor = c.c_int(-1)
    return cuda.cuMemPoolExportToShareableHandle(REF(descriptor), c.c_void_p(pool), kind, u64(flags)), descriptor.value


def import_pool(descriptor, kind=DESCRIPTOR, flags=0):
    pool = c.c_void_p()
    code = cuda.cuMemPoolImportFromShareableHandle(REF(pool), c.c_void_p(descriptor), kind, u64(flags))
    return code, pool.value


def receive_pool():
    _, descriptors, _, _ = socket.recv_fds(socket.socket(fileno=int(sys.argv[2])), 1, 1)
    found = import_pool(descriptors[0])
    os.close(descriptors[0])
    return found


def export_block(address):
    data = (c.c_ubyte * 64)()
    return cuda.cuMemPoolExportPointer(data, u64(address)), bytes(data)


def import_block(pool, data):
    address = u64()
    return cuda.cuMemPoolImportPointer(REF(address), c.c_void_p(pool), (c.c_ubyte * 64)(*data)), address.value


def import_block_by_runtime(pool, data):
    address = u64()
    return runtime.cudaMemPoolImportPointer(REF(address), c.c_void_p(pool), (c.c_ubyte * 64)(*data)), address.value


def attribute(pool, which):
    value = u64()
    return cuda.cuMemPoolGetAttribute(c.c_void_p(pool), which, REF(value)), value.value


def pool_of(address):
    value = u64()
    return cuda.cuPointerGetAttribute(REF(value), 17, u64(address)), value.value


def choose(pool):
    return cuda.cuDeviceSetMemPool(0, c.c_void_p(pool))


def destroy(pool):
    return cuda.cuMemPoolDestroy(c.c_void_p(pool))


def write(address, words, stream=None):
    """A stream of the device's own kind; what is pageable has been read when it returns."""
    return cuda.cuMemcpyHtoDAsync_v2(u64(address), (u32 * len(words))(*words), size(4 * len(words)), c.c_void_p(stream))


def read(address, count, stream=None):
    words = (u32 * count)()
    return cuda.cuMemcpyDtoHAsync_v2(words, u64(address), size(4 * count), c.c_void_p(stream)), list(words)


def free(address, stream=None, in_order=True):
    return cuda.cuMemFreeAsync(u64(address), c.c_void_p(stream)) if in_order else cuda.cuMemFree_v2(u64(address))


def new_stream():
    return made("cuStreamCreate", 1).value


def new_event():
    handle, event = (c.c_ubyte * 64)(), made("cuEventCreate", 6)
    call("cuIpcGetEventHandle", handle, event)
    return event.value, bytes(handle)


class Handle(c.Structure):
    _fields_ = [("bytes", c.c_ubyte * 64)]


def open_event(handle):
    event = c.c_void_p()
    call("cuIpcOpenEventHandle", REF(event), Handle((c.c_ubyte * 64)(*handle)))
    return event.value


def fill_free_and_record(address, value, count, stream, event):
    call("cuMemsetD32Async", u64(address), u32(value), size(count), c.c_void_p(stream))
    call("cuMemFreeAsync", u64(address), c.c_void_p(stream))
    return cuda.cuEventRecord(c.c_void_p(event), c.c_void_p(stream))


def wait_for(event, stream):
    return cuda.cuStreamWaitEvent(c.c_void_p(stream), c.c_void_p(event), u32(0))


def synchronize(stream=None):
    return cuda.cuStreamSynchronize(c.c_void_p(stream))


def ok(code, *values):
    if isinstance(code, tuple):
        code, *values = code
    assert code == 0, code
    return values[0] if values else None


serve_if_asked(globals(), begin)
begin()
value = c.c_int()
call("cuDeviceGetAttribute", REF(value), 119, 0)
assert value.value & DESCRIPTOR, "handle types of pools"

# A pool that another process has, by a descriptor that is sent, and one that has inherited it.
pool, stream = ok(new_pool()), new_stream()
descriptor = ok(export_pool(pool))
mine, sent = socket.socketpair()
other, heir = Other(sent.fileno()), Other(descriptor)
socket.send_fds(mine, [b"x"], [descriptor])
theirs, inherited = ok(other.receive_pool()), ok(heir.import_pool(descriptor))
large, small = ok(block(pool, 5 * MIB, stream)), [ok(block(pool, 1000, stream)) for _ in range(3)]
ok(write(large, [1, 2, 3], stream))
for number, address in enumerate(small):
    ok(write(address, [number] * 250, stream))
ok(synchronize(stream))
data, small_data = ok(export_block(large)), [ok(export_block(address)) for address in small]
there = ok(other.import_block(theirs, data))
assert ok(other.read(there, 3)) == [1, 2, 3]
ok(other.write(there + 4 * MIB, [4, 5]))
ok(other.synchronize())
assert ok(read(large + 4 * MIB, 2)) == [4, 5]
away()
assert ok(read(large, 3)) == [1, 2, 3] and ok(other.read(there + 4 * MIB, 2)) == [4, 5]
opened = [ok(heir.import_block_by_runtime(inherited, each)) for each in small_data]
assert [ok(heir.read(each, 250)) for each in opened] == [[number] * 250 for number in range(3)]
assert pool_of(large) == (0, pool) and ok(other.pool_of(there)) == theirs and ok(heir.pool_of(opened[2])) == inherited

# What is imported gives its blocks back, in order or at once, and has none of its own.
is_open = sys.argv[1:] == ["conformance"]
assert is_open or other.block(theirs, 1024, None)[0] == INVALID and other.choose(theirs) == INVALID
assert is_open or other.export_block(there)[0] == INVALID and other.export_pool(theirs)[0] == INVALID
assert ok(other.attribute(theirs, 7)) == 0 and ok(attribute(pool, 7)) >= 5 * MIB + 3000
ok(other.free(there))
assert is_open or other.free(there) == INVALID and other.read(there, 1)[0] == INVALID
ok(heir.free(opened[0], None, False))
assert ok(heir.read(opened[1], 250)) == [1] * 250, "they lie together"
assert is_open or heir.free(opened[0], None, False) == INVALID and heir.free(opened[1] + 512, None, False) == INVALID
for address in opened[1:]:
    ok(heir.free(address))
assert ok(read(large, 3)) == [1, 2, 3]

# Imported again as often as one likes; given back by whoever has it after the other's work, as an event says.
event, handle = new_event()
their_event, their_stream = other.open_event(handle), other.new_stream()
for step in range(8):
    there = ok(other.import_block(theirs, data))
    ok(other.fill_free_and_record(there, step, MIB, their_stream, their_event))
    ok(wait_for(event, stream))
    assert ok(read(large + 4 * MIB - 4, 1, stream)) == [step]
    ok(free(large, stream))
    again = ok(block(pool, 5 * MIB, stream))
    assert again == large, "what was freed is used again"
    if step % 4 == 3:
        away()

if is_open:
    sys.exit(print("shared pools passed"))

# What another process still has outlives its block, and its pool.
there = ok(other.import_block(theirs, ok(export_block(large))))
ok(write(large, [7], stream))
ok(free(large, stream))
ok(synchronize(stream))
for address in small:
    ok(free(address, stream))
ok(synchronize(stream))
assert ok(other.read(there, 1)) == [7]
ok(destroy(pool))
assert heir.import_block(inherited, data)[0] == INVALID, "it is over"
away()
assert ok(other.read(there, 1)) == [7]
ok(other.destroy(theirs))
ok(other.free(there))

# What is no pool for others, no handle, and no block of that pool.
assert export_pool(pool)[0] == INVALID
pool, second, own = ok(new_pool()), ok(new_pool()), ok(new_pool(0))
descriptor, wrong = ok(export_pool(pool)), ok(export_pool(second))
assert export_pool(own)[0] == INVALID and export_pool(pool, FABRIC)[0] == INVALID and export_pool(pool, DESCRIPTOR, 1)[0] == INVALID
assert new_pool(FABRIC)[0] == NOT_SUPPORTED and new_pool(2)[0] == NOT_SUPPORTED
late = Other(descriptor, wrong)
theirs, others = ok(late.import_pool(descriptor)), ok(late.import_pool(wrong))
assert late.import_pool(descriptor, DESCRIPTOR, 1)[0] == INVALID and late.import_pool(descriptor, FABRIC)[0] == INVALID
assert late.import_pool(os.pipe()[0])[0] == INVALID and late.import_pool(1 << 20)[0] == INVALID
address, hidden, plain = ok(block(pool, 2 * MIB, stream)), ok(block(own, 2 * MIB, stream)), made("cuMemAlloc_v2", size(2 * MIB), kind=u64).value
for one in (hidden, plain, address + 4096, 0, 4096):
    assert export_block(one)[0] == INVALID, hex(one)
data = ok(export_block(address))
assert late.import_block(others, data)[0] == INVALID, "of another pool"
for at in (0, 8, 23, 24, 33, 47, 48):
    broken = bytearray(data)
    broken[at] ^= 64
    assert late.import_block(theirs, bytes(broken))[0] != 0, at
assert late.import_block(theirs, bytes(64))[0] == INVALID
assert cuda.cuMemPoolExportPointer(None, u64(address)) == cuda.cuMemPoolImportPointer(None, c.c_void_p(pool), data) == INVALID
ok(late.import_block(theirs, data))
late.kill()
assert ok(read(address, 1)) == [0]

# A pool that has a limit.
small = ok(new_pool(0, 3 * MIB))
first = ok(block(small, 2 * MIB, stream))
assert block(small, 3 * MIB, stream)[0] == OUT_OF_MEMORY
second = ok(block(small, 2 * MIB, stream))
assert block(small, 512, stream)[0] == OUT_OF_MEMORY
ok(free(first, stream))
ok(free(second, stream))
ok(block(small, 4 * MIB, stream))
print("shared pools passed", flush=True)
