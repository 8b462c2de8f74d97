"""Managed memory by ctypes: what is told of it, every kind of work on it, and the errors that the driver gives."""
import ctypes as c
import os
from ctypes import byref

from driver_calls import begin, call, cuda, made
from leaving import away

u64, size, i32 = c.c_uint64, c.c_size_t, c.c_int
INVALID, OUT_OF_MEMORY, INVALID_DEVICE, CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 1, 2, 101, 900, 901
GLOBAL, HOST, SINGLE = 1, 2, 4
CPU, NOWHERE = -1, -2
PAGE = 4096

begin()
for attribute in (83, 89):  # managed memory; concurrent access
    assert made("cuDeviceGetAttribute", attribute, 0, kind=i32).value == 1


def managed(bytes, flags=GLOBAL):
    return made("cuMemAllocManaged", size(bytes), c.c_uint(flags), kind=u64).value


def words(address, count):
    return (c.c_uint32 * count).from_address(address)


def location(kind, id=0):
    return u64(kind | (id & 0xFFFFFFFF) << 32)  # a structure in a register


COUNT = 20000
MODULE = made("cuModuleLoadData", b""".version 7.0
.target sm_70
.address_size 64
.visible .entry add(.param .u64 p, .param .u32 n, .param .u32 v) {
  .reg .pred %p<2>; .reg .b32 %r<8>; .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [n]; ld.param.u32 %r2, [v];
  mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x; mad.lo.s32 %r6, %r3, %r4, %r5;
  setp.ge.s32 %p1, %r6, %r1; @%p1 bra DONE;
  mul.wide.s32 %rd3, %r6, 4; add.s64 %rd4, %rd1, %rd3;
  ld.u32 %r7, [%rd4]; add.s32 %r7, %r7, %r2; st.u32 [%rd4], %r7;
DONE: ret;
}
.visible .entry follow(.param .u64 p, .param .u32 v) {
  .reg .b32 %r<3>; .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [v];
  ld.u64 %rd2, [%rd1]; ld.u32 %r2, [%rd2]; add.s32 %r2, %r2, %r1; st.u32 [%rd2], %r2; st.u32 [%rd1+8], %r2; ret;
}
""")
add, follow = (made("cuModuleGetFunction", MODULE, name) for name in (b"add", b"follow"))


def launch(kernel, arguments, stream=None, blocks=1, threads=256):
    parameters = (c.c_void_p * len(arguments))(*map(c.addressof, arguments))
    call("cuLaunchKernel", kernel, blocks, 1, 1, threads, 1, 1, 0, stream, parameters, None)


def add_to(address, value, stream=None, count=COUNT):
    launch(add, (u64(address), c.c_uint(count), c.c_uint(value)), stream, count // 256 + 1)


# Errors of the allocation, and what is told of the pointer.
place = u64()
call("cuMemAllocManaged", byref(place), size(0), GLOBAL, expected=INVALID)
for flags in (0, 3, SINGLE, 8):
    call("cuMemAllocManaged", byref(place), size(64), flags, expected=INVALID)
call("cuMemAllocManaged", None, size(64), GLOBAL, expected=INVALID)
data = managed(4 * COUNT)
for inside in (data, data + 4 * COUNT - 1):
    values = {1: u64(), 2: c.c_uint(), 3: u64(), 4: u64(), 8: c.c_uint(), 9: i32(7), 11: u64(), 12: size(), 13: c.c_uint()}
    for attribute, value in values.items():
        call("cuPointerGetAttribute", byref(value), attribute, u64(inside))
    del values[1]
    told = {attribute: value.value for attribute, value in values.items()}
    assert told == {2: 2, 3: inside, 4: inside, 8: 1, 9: 0, 11: data, 12: 4 * COUNT, 13: 1}, told
    start, length = u64(), size()
    call("cuMemGetAddressRange_v2", byref(start), byref(length), u64(inside))
    assert (start.value, length.value) == (data, 4 * COUNT)
call("cuPointerGetAttribute", byref(u64()), 8, u64(data + 4 * COUNT), expected=INVALID)
call("cuMemHostGetDevicePointer_v2", byref(place), u64(data), 0, expected=INVALID)
call("cuMemFreeHost", u64(data), expected=INVALID)
pinned = made("cuMemHostAlloc", size(PAGE), 0, kind=u64)
call("cuMemFree_v2", pinned, expected=INVALID)
call("cuMemAdvise_v2", pinned, size(64), 1, location(1), expected=INVALID)

# Advice and prefetches are read back.
stream = made("cuStreamCreate", 1)


def told(attribute, address, bytes, room=4):
    values = (i32 * (room // 4))()
    call("cuMemRangeGetAttribute", values, size(room), attribute, u64(address), size(bytes))
    return list(values) if room > 4 else values[0]


def advised():
    whole = data, 4 * COUNT
    return [told(1, *whole), told(2, *whole), told(3, *whole, room=12), told(4, *whole), told(5, *whole), told(7, *whole)]


assert advised() == [0, NOWHERE, [NOWHERE] * 3, NOWHERE, 0, 0]
call("cuMemAdvise_v2", u64(data), size(4 * COUNT), 1, location(9, 9))
call("cuMemAdvise_v2", u64(data), size(4 * COUNT), 3, location(1))
call("cuMemAdvise_v2", u64(data), size(4 * COUNT), 5, location(1))
call("cuMemAdvise", u64(data), size(4 * COUNT), 5, CPU)
call("cuMemPrefetchAsync_v2", u64(data), size(4 * COUNT), location(2), 0, stream)
assert advised() == [1, 0, [CPU, 0, NOWHERE], CPU, 1, 2] or advised() == [1, 0, [0, CPU, NOWHERE], CPU, 1, 2]
call("cuMemPrefetchAsync", u64(data + PAGE), size(1), 0, stream)
assert told(4, data, PAGE) == CPU and told(4, data + PAGE, PAGE) == 0 and told(4, data, 2 * PAGE) == NOWHERE
call("cuMemPrefetchAsync", u64(data), size(4 * COUNT), 0, stream)
kept = advised()
number, mostly, many = i32(), i32(), (i32 * 2)()
call("cuMemRangeGetAttributes", (c.c_void_p * 3)(*map(c.addressof, (number, mostly, many))), (size * 3)(4, 4, 8),
     (i32 * 3)(2, 1, 3), size(3), u64(data), size(16))
assert (number.value, mostly.value, sorted(many)) == (0, 1, [CPU, 0])
for arguments, expected in (
    ((u64(data), size(4 * COUNT + 1), 1, location(1)), INVALID), ((u64(data), size(0), 1, location(1)), INVALID),
    ((u64(data), size(4), 7, location(1)), INVALID), ((u64(data), size(4), 3, location(1, 1)), INVALID_DEVICE),
    ((u64(data), size(4), 3, location(0)), INVALID), ((u64(data), size(4), 5, location(3)), INVALID),
):
    call("cuMemAdvise_v2", *arguments, expected=expected)
call("cuMemPrefetchAsync_v2", u64(data), size(4), location(1), 1, stream, expected=INVALID)
call("cuMemPrefetchAsync", u64(data), size(4), 1, stream, expected=INVALID_DEVICE)
call("cuMemPrefetchAsync", u64(0x1000), size(4), 0, stream, expected=INVALID)
for attribute, room in ((1, 8), (2, 1), (3, 0), (3, 6), (9, 4)):
    call("cuMemRangeGetAttribute", (i32 * 4)(), size(room), attribute, u64(data), size(4), expected=INVALID)
addresses, sizes = (u64 * 3)(data, data + PAGE, data + 2 * PAGE), (size * 3)(PAGE, PAGE, PAGE)
places = (u64 * 2)(location(2), location(1))
batch = addresses, sizes, size(3), places, (size * 2)(0, 2), size(2), u64(0), stream
call("cuMemPrefetchBatchAsync", *batch)
assert [told(4, data + page * PAGE, PAGE) for page in range(3)] == [CPU, CPU, 0]
call("cuMemDiscardBatchAsync", addresses, sizes, size(3), u64(0), stream)
call("cuMemDiscardAndPrefetchBatchAsync", addresses, sizes, size(3), places, (size * 2)(0, 1), size(2), u64(0), stream)
assert [told(4, data + page * PAGE, PAGE) for page in range(3)] == [CPU, 0, 0]
call("cuMemPrefetchBatchAsync", *batch[:-1], None, expected=INVALID)
call("cuMemPrefetchBatchAsync", *batch[:4], (size * 2)(1, 2), *batch[5:], expected=INVALID)
call("cuMemPrefetchAsync", u64(data), size(4 * COUNT), 0, stream)
for arguments, expected in (
    ((u64(data), size(0), SINGLE), 0), ((u64(data), size(4 * COUNT), HOST), 0), ((u64(data), size(0), GLOBAL), 0),
    ((u64(data), size(4), SINGLE), INVALID), ((u64(data), size(0), 3), INVALID), ((u64(0x1000), size(0), SINGLE), INVALID),
):
    call("cuStreamAttachMemAsync", stream, *arguments, expected=expected)
call("cuStreamAttachMemAsync", None, u64(data), size(0), SINGLE, expected=INVALID)

# The program and kernels take turns, and the program is away in between.
host = words(data, COUNT)
for turn in range(4):
    host[:] = [turn + index for index in range(COUNT)]
    add_to(data, 5, stream)
    if turn % 2 == 0:
        call("cuStreamSynchronize", stream)
    away()
    call("cuStreamSynchronize", stream)
    assert host[:] == [turn + 5 + index for index in range(COUNT)], turn
    assert advised() == kept

# Pointers to device memory in managed memory, which is found when that is on its way back.
devices = [made("cuMemAlloc_v2", size(8 << 20), kind=u64) for _ in range(6)]
chain = managed(16)
for turn, device in enumerate(devices):
    call("cuMemsetD32_v2", device, 100 * turn, size(2 << 20))
for turn, device in enumerate(devices):
    away()
    u64.from_address(chain).value = device.value + (4 << 20)
    launch(follow, (u64(chain), c.c_uint(1)), threads=1)
    call("cuCtxSynchronize")
    assert words(chain + 8, 1)[0] == 100 * turn + 1

# Copies and fills of every kind, with managed memory on one side and on both.
other, device, ordinary = managed(4 * COUNT), devices[0].value, (c.c_uint32 * COUNT)()
for kind in ("", "Async"):
    more = (stream,) if kind else ()

    def copied(name, to, source):
        call(f"{name}{kind}" + "_v2" * name.endswith(("toD", "toH")), *(
            value if isinstance(value, c.Array) else u64(value) for value in (to, source)), size(4 * COUNT), *more)

    host[:] = range(7, COUNT + 7)
    copied("cuMemcpyHtoD", device, c.cast(data, c.POINTER(c.c_uint32 * COUNT)).contents)
    copied("cuMemcpyDtoD", other, device)
    copied("cuMemcpyDtoH", ordinary, other)
    call("cuStreamSynchronize", stream)
    assert ordinary[:] == host[:] == words(other, COUNT)[:]
    ordinary[:] = range(COUNT)
    copied("cuMemcpyHtoD", data, ordinary)
    copied("cuMemcpy", other, data)
    copied("cuMemcpy", device, other)
    call("cuStreamSynchronize", stream)
    assert words(other, COUNT)[:] == ordinary[:]
    ordinary[:] = [0] * COUNT
    copied("cuMemcpy", c.addressof(ordinary), device)
    call("cuStreamSynchronize", stream)
    assert ordinary[:] == words(data, COUNT)[:] == list(range(COUNT))
    call(f"cuMemsetD32{kind}" + "" if kind else "cuMemsetD32_v2", u64(other), 9, size(100), *more)
    call(f"cuMemsetD2D8{kind}" + "" if kind else "cuMemsetD2D8_v2", u64(other + 400), size(16), 1, size(4), size(10), *more)
    call("cuStreamSynchronize", stream)
    assert words(other, 102)[:] == [9] * 100 + [0x01010101, 101], words(other, 102)[:]
batch = (u64 * 2)(other, other + 64), (u64 * 2)(data + 400, device + 800), (size * 2)(8, 8), size(2)
order = (c.c_uint32 * 6)(1)
call("cuMemcpyBatchAsync_v2", *batch, order, (size * 1)(0), size(1), stream)
call("cuStreamSynchronize", stream)
assert words(other, 18)[:2] + words(other, 18)[16:] == [100, 101, 200, 201]

# In graphs, which are launched where the program was not when it made them.
call("cuStreamBeginCapture_v2", stream, 0)
add_to(data, 3, stream)
call("cuMemcpyDtoDAsync_v2", u64(other), u64(data), size(4 * COUNT), stream)
call("cuMemsetD32Async", u64(data), 1, size(10), stream)
graph = c.c_void_p()
call("cuStreamEndCapture", stream, byref(graph))
for name, arguments in (("cuMemPrefetchAsync", (u64(data), size(4), 0, stream)),
                        ("cuStreamAttachMemAsync", (stream, u64(data), size(0), GLOBAL))):
    call("cuStreamBeginCapture_v2", stream, 0)
    call(name, *arguments, expected=CAPTURE_UNSUPPORTED)
    call("cuStreamEndCapture", stream, byref(c.c_void_p()), expected=CAPTURE_INVALIDATED)
ready = made("cuGraphInstantiateWithFlags", graph, u64(0))
for turn in range(3):
    host[:] = [turn] * COUNT
    call("cuGraphLaunch", ready, stream)
    call("cuStreamSynchronize", stream)
    assert words(other, COUNT)[:] == [turn + 3] * COUNT and host[:12] == [1] * 10 + [turn + 3] * 2
    away()

# A child has no CUDA, and its parent's memory stays as it is.
host[:] = range(COUNT)
child = os.fork()
if child == 0:
    os._exit(cuda.cuMemAllocManaged(byref(place), size(64), GLOBAL))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
add_to(data, 1, stream)
call("cuStreamSynchronize", stream)
assert host[:] == list(range(1, COUNT + 1))

# What is freed is nobody's, and what was said of it is forgotten. A free waits for all that may use the memory.
add_to(data, 1, stream)
call("cuMemFree_v2", u64(data))
call("cuMemFree_v2", u64(data), expected=INVALID)
call("cuMemFree_v2", u64(other + 4), expected=INVALID)
call("cuMemRangeGetAttribute", byref(number), size(4), 1, u64(data), size(4), expected=INVALID)
again = managed(4 * COUNT, HOST)
assert again == data, "the place is free"
assert advised() == [0, NOWHERE, [NOWHERE] * 3, NOWHERE, 0, 0]

# More than the function may have is out of memory, and the program goes on.
taken = []
while (code := cuda.cuMemAllocManaged(byref(place), size(8 << 20), GLOBAL)) == 0:
    taken.append(place.value)
    assert len(taken) < 100
assert code == OUT_OF_MEMORY and len(taken) >= 4, (code, len(taken))
for address in taken:
    words(address, 1)[0] = 5
    add_to(address, 1, count=1)
call("cuCtxSynchronize")
assert all(words(address, 1)[0] == 6 for address in taken)
for address in taken:
    call("cuMemFree_v2", u64(address))
managed(8 << 20)
print("managed passed")
