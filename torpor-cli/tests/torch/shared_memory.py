"""Memory and events of other processes by ctypes: handles, descriptors, what both sides write, and the errors that the driver
gives; evicted between steps."""
import ctypes as c
import os
import socket
import sys

from leaving import away
from processes import Other, serve_if_asked

MIB = 1 << 20
REF = c.byref
own = c.CDLL("libcuda.so.1")
u64, size, u32 = c.c_uint64, c.c_size_t, c.c_uint


class Handle(c.Structure):
    _fields_ = [("bytes", c.c_ubyte * 64)]


class Property(c.Structure):
    _fields_ = [("type", c.c_int), ("handles", c.c_int), ("place", c.c_int), ("device", c.c_int), ("win32", c.c_void_p),
                ("flags", c.c_ubyte * 8)]


class Access(c.Structure):
    _fields_ = [("place", c.c_int), ("device", c.c_int), ("flags", c.c_int)]


def ok(code, *values):
    if isinstance(code, tuple):
        code, *values = code
    assert code == 0, code
    return values[0] if values else None


def allocate(bytes):
    address = u64()
    ok(own.cuMemAlloc_v2(REF(address), size(bytes)))
    return address.value


def free(address):
    return own.cuMemFree_v2(u64(address))


def write(address, words):
    return own.cuMemcpyHtoD_v2(u64(address), (u32 * len(words))(*words), size(4 * len(words)))


def read(address, count):
    words = (u32 * count)()
    code = own.cuMemcpyDtoH_v2(words, u64(address), size(4 * count))
    return code, list(words)


def handle_of(address):
    handle = Handle()
    return own.cuIpcGetMemHandle(REF(handle), u64(address)), bytes(handle.bytes)


def taken(handle):
    return Handle((c.c_ubyte * 64)(*handle))


def open_memory(handle, flags=1):
    address = u64()
    return own.cuIpcOpenMemHandle_v2(REF(address), taken(handle), u32(flags)), address.value


def close_memory(address):
    return own.cuIpcCloseMemHandle(u64(address))


def new_event(flags):
    event = c.c_void_p()
    return own.cuEventCreate(REF(event), u32(flags)), event.value


def handle_of_event(event):
    handle = Handle()
    return own.cuIpcGetEventHandle(REF(handle), c.c_void_p(event)), bytes(handle.bytes)


def open_event(handle):
    event = c.c_void_p()
    return own.cuIpcOpenEventHandle(REF(event), taken(handle)), event.value


def new_stream():
    stream = c.c_void_p()
    ok(own.cuStreamCreate(REF(stream), u32(1)))
    return stream.value


def fill_and_record(address, value, count, stream, event):
    ok(own.cuMemsetD32Async(u64(address), u32(value), size(count), c.c_void_p(stream)))
    return own.cuEventRecord(c.c_void_p(event), c.c_void_p(stream))


def wait_and_copy(to, address, count, stream, event):
    ok(own.cuStreamWaitEvent(c.c_void_p(stream), c.c_void_p(event), u32(0)))
    ok(own.cuMemcpyDtoDAsync_v2(u64(to), u64(address), size(4 * count), c.c_void_p(stream)))
    ok(own.cuStreamSynchronize(c.c_void_p(stream)))
    return ok(read(to, 1)) + ok(read(to + 4 * count - 4, 1))


def wait_for(event):
    return own.cuEventSynchronize(c.c_void_p(event)), own.cuEventQuery(c.c_void_p(event))


def map_object(handle, bytes):
    address = u64()
    ok(own.cuMemAddressReserve(REF(address), size(bytes), size(0), u64(0), u64(0)))
    ok(own.cuMemMap(address, size(bytes), size(0), u64(handle), u64(0)))
    ok(own.cuMemSetAccess(address, size(bytes), REF(Access(1, 0, 3)), size(1)))
    return address.value


def import_object(descriptor):
    handle = u64()
    return own.cuMemImportFromShareableHandle(REF(handle), c.c_void_p(descriptor), 1), handle.value


def receive_object():
    _, descriptors, _, _ = socket.recv_fds(socket.socket(fileno=int(sys.argv[2])), 1, 1)
    return import_object(descriptors[0])


def release(handle):
    return own.cuMemRelease(u64(handle))


def unmap(address, bytes):
    ok(own.cuMemUnmap(u64(address), size(bytes)))
    return own.cuMemAddressFree(u64(address), size(bytes))


def attribute(address, which):
    value = u64()
    return own.cuPointerGetAttribute(REF(value), which, u64(address)), value.value


def start():
    ok(own.cuInit(0))
    context = c.c_void_p()
    ok(own.cuDevicePrimaryCtxRetain(REF(context), 0))
    ok(own.cuCtxSetCurrent(context))


serve_if_asked(globals(), start)
start()
other = Other()
value = c.c_int()
ok(own.cuDeviceGetAttribute(REF(value), 125, 0))
assert value.value == 1, "events of other processes"

# One allocation, two processes.
large = allocate(5 * MIB)
ok(write(large, [1, 2, 3]))
handle = ok(handle_of(large))
assert handle == ok(handle_of(large + 4096)), "a handle is of the whole allocation"
there = ok(other.open_memory(handle))
assert ok(other.read(there, 3)) == [1, 2, 3]
ok(other.write(there + 4 * MIB, [4, 5]))
assert ok(read(large + 4 * MIB, 2)) == [4, 5]
away()
assert ok(read(large + 4 * MIB, 2)) == [4, 5]
ok(write(large, [9]))
away()
assert ok(other.read(there, 3)) == [9, 2, 3]

# It is opened once, and closed as often as it was opened.
assert ok(other.open_memory(handle)) == there
ok(other.close_memory(there))
assert ok(other.read(there, 1)) == [9]
assert other.free(there) == 1 and other.handle_of(there)[0] == 1 and other.close_memory(there + 4096) == 1
ok(other.close_memory(there))
assert other.close_memory(there) == 1 and other.read(there, 1)[0] == 1

# Small allocations share what is opened, and no other goes there.
small = [allocate(1000) for _ in range(3)]
for number, address in enumerate(small):
    ok(write(address, [number] * 250))
handles = [ok(handle_of(address)) for address in small]
opened = [ok(other.open_memory(each)) for each in handles]
assert [ok(other.read(each, 250)) for each in opened] == [[number] * 250 for number in range(3)]
ok(free(small[1]))
ok(write(allocate(1000), [77] * 250))
assert ok(other.read(opened[1], 250)) == [1] * 250
assert [ok(other.close_memory(each)) for each in opened] == [None] * 3

# What is no handle, or no memory for one.
assert open_memory(handle)[0] == 201 and open_memory(handles[0])[0] == 201
assert other.open_memory(handle, 2)[0] == 1
for at in (0, 8, 23, 33, 47):
    broken = bytearray(handle)
    broken[at] ^= 64
    assert other.open_memory(bytes(broken))[0] != 0, at
assert other.open_memory(bytes(64))[0] == 1
pooled = u64()
ok(own.cuMemAllocAsync(REF(pooled), size(4 * MIB), c.c_void_p()))
pinned = c.c_void_p()
ok(own.cuMemAllocHost_v2(REF(pinned), size(4096)))
for address in (pooled.value, pinned.value, 0, 4096):
    assert handle_of(address)[0] == 1, hex(address)
assert attribute(large, 10) == (0, 1) and attribute(pooled.value, 10) == (0, 0)
assert own.cuIpcGetMemHandle(None, u64(large)) == 1

# It lives until the last has closed it; the exporter's handle does not.
there = ok(other.open_memory(handle))
ok(free(large))
again = allocate(5 * MIB)
ok(write(again, [6]))
assert ok(other.read(there, 1)) == [9]
third = Other()
assert third.open_memory(handle)[0] == 1
away()
assert ok(other.read(there, 3)) == [9, 2, 3]
ok(other.close_memory(there))

# Who is killed harms nobody.
handle = ok(handle_of(again))
there, elsewhere = ok(other.open_memory(handle)), ok(third.open_memory(handle))
ok(third.write(elsewhere, [8]))
third.kill()
assert ok(other.read(there, 1)) == ok(read(again, 1)) == [8]

# Events: waited for in another process, as often as they are recorded.
assert new_event(4)[0] == 1, "they keep no time"
assert handle_of_event(ok(new_event(2)))[0] == 400
event, stream = ok(new_event(6)), new_stream()
handle = ok(handle_of_event(event))
assert open_event(handle)[0] == 201 and other.open_event(bytes(64))[0] == 1
theirs, their_stream, scratch = ok(other.open_event(handle)), other.new_stream(), other.allocate(4 * MIB)
assert other.wait_for(theirs) == (0, 0), "it was never recorded"
for step in range(20):
    ok(fill_and_record(again, step, MIB, stream, event))
    assert other.wait_and_copy(scratch, there, MIB, their_stream, theirs) == [step] * 2
    if step % 5 == 4:
        away()
ok(other.fill_and_record(there, 99, 16, their_stream, theirs))
assert wait_for(event) == (0, 0)
assert ok(read(again, 16)) == [99] * 16, "who opened it records it, too"
ok(own.cuEventDestroy_v2(c.c_void_p(event)))
ok(other.fill_and_record(there, 98, 16, their_stream, theirs))
assert other.wait_for(theirs) == (0, 0) and ok(read(again, 16)) == [98] * 16

# Objects as descriptors: sent over a socket before they are mapped, or left open in a child.
wanted, object_, descriptor = Property(type=1, handles=1, place=1), u64(), c.c_int(-1)
ok(own.cuMemCreate(REF(object_), size(4 * MIB), REF(wanted), u64(0)))
ok(own.cuMemExportToShareableHandle(REF(descriptor), object_, 1, u64(0)))
mine, sent = socket.socketpair()
receiver = Other(sent.fileno(), descriptor.value)
socket.send_fds(mine, [b"x"], [descriptor.value])
received = ok(receiver.receive_object())
view = receiver.map_object(received, 4 * MIB)
ok(receiver.write(view + MIB, [11]))
own_view = map_object(object_.value, 4 * MIB)
assert ok(read(own_view, 2)) == [0, 0] and ok(read(own_view + MIB, 1)) == [11]
assert attribute(own_view, 10) == (0, 0) and attribute(own_view, 14) == (0, 1)
assert handle_of(own_view)[0] == 1 and receiver.handle_of(view)[0] == 1
away()
assert ok(receiver.import_object(descriptor.value)) == received, "as an inherited descriptor, once more"
ok(receiver.release(received))
ok(receiver.release(received))
assert ok(receiver.read(view + MIB, 1)) == [11], "what is mapped stays"
ok(release(object_.value))
ok(unmap(own_view, 4 * MIB))
away()
assert ok(receiver.read(view + MIB, 1)) == [11], "so does what its maker has given up"
late = Other(descriptor.value)
late_view = late.map_object(ok(late.import_object(descriptor.value)), 4 * MIB)
assert ok(late.read(late_view + MIB, 1)) == [11]
receiver.kill()
ok(late.unmap(late_view, 4 * MIB))
assert late.import_object(os.pipe()[0])[0] == 1 and late.import_object(1 << 20)[0] == 1
print("shared memory passed", flush=True)
