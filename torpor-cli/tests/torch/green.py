"""Green contexts by the driver's interface: what they have, where their kernels run, in which order, and what is left when they go.

Between its rounds it leaves its GPU, if whoever started it says how (leaving.py). Its kernels come as PTX.
"""

import ctypes as c

from leaving import away

driver = c.CDLL("libcuda.so.1")
INVALID_VALUE, INVALID_CONTEXT, INVALID_HANDLE, DESTROYED, WRONG_TYPE, WRONG_CONFIGURATION = 1, 201, 400, 709, 914, 915
MULTIPROCESSORS, DEFAULT_STREAM, NON_BLOCKING, DISABLE_TIMING = 1, 1, 1, 2
BLOCKS, COUNT = 512, 1024

PTX = b"""
.version 7.0
.target sm_70
.address_size 64

// Where each block runs. It stays there for a while, so that the next ones run elsewhere.
.visible .entry where(.param .u64 place, .param .u32 rounds)
{
    .reg .pred %p;
    .reg .b32 %r<6>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [place];
    ld.param.u32 %r1, [rounds];
    cvta.to.global.u64 %d1, %d1;
    mov.u32 %r2, %ctaid.x;
    mul.wide.u32 %d2, %r2, 4;
    add.s64 %d3, %d1, %d2;
    mov.u32 %r3, %smid;
    mov.u32 %r4, 0;
ROUND:
    mad.lo.u32 %r5, %r4, 1664525, %r3;
    add.u32 %r4, %r4, 1;
    st.volatile.global.u32 [%d3], %r5;
    setp.lt.u32 %p, %r4, %r1;
    @%p bra ROUND;
    st.volatile.global.u32 [%d3], %r3;
    ret;
}

.visible .entry advance(.param .u64 place)
{
    .reg .b32 %r<3>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [place];
    cvta.to.global.u64 %d1, %d1;
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %d2, %r1, 4;
    add.s64 %d3, %d1, %d2;
    ld.global.u32 %r2, [%d3];
    mad.lo.u32 %r2, %r2, 1664525, 1013904223;
    st.global.u32 [%d3], %r2;
    ret;
}
"""


class Resource(c.Structure):
    """`CUdevResource`."""

    _fields_ = [("type", c.c_int), ("padding", c.c_ubyte * 92), ("count", c.c_uint), ("least", c.c_uint), ("alignment", c.c_uint), ("rest", c.c_ubyte * 36)]


def gives(expected, name, *arguments):
    code = getattr(driver, name)(*arguments)
    assert code == expected, f"{name}: {code} instead of {expected}"


def call(name, *arguments):
    gives(0, name, *arguments)


def made(name, *arguments, kind=c.c_void_p):
    value = kind()
    call(name, c.byref(value), *arguments)
    return value


def part_of(name, owner):
    """What a device or a context has."""
    resource = Resource()
    call(name, owner, c.byref(resource), MULTIPROCESSORS)
    return resource


def launch(kernel, blocks, threads, *parameters, stream=None):
    pointers = (c.c_void_p * len(parameters))(*map(c.addressof, parameters))
    call("cuLaunchKernel", kernel, blocks, 1, 1, threads, 1, 1, 0, stream, pointers, None)


def read(address, count):
    words = (c.c_uint32 * count)()
    call("cuMemcpyDtoH_v2", words, address, c.c_size_t(4 * count))
    return list(words)


call("cuInit", 0)
device = made("cuDeviceGet", 0, kind=c.c_int)
whole_context = made("cuDevicePrimaryCtxRetain", device)
call("cuCtxSetCurrent", whole_context)
memory = made("cuMemAlloc_v2", c.c_size_t(4 * BLOCKS), kind=c.c_uint64)
places = [made("cuMemAlloc_v2", c.c_size_t(4 * COUNT), kind=c.c_uint64) for _ in range(2)]
# A library's kernels are of every context.
library = made("cuLibraryLoadData", PTX, None, None, 0, None, None, 0)
where, advance = (made("cuLibraryGetKernel", library, name) for name in (b"where", b"advance"))

# Parts.
whole = part_of("cuDeviceGetDevResource", device)
of_device = c.c_int()
call("cuDeviceGetAttribute", c.byref(of_device), 16, device)
assert (whole.type, whole.count) == (MULTIPROCESSORS, of_device.value), (whole.type, whole.count, of_device.value)
gives(WRONG_TYPE, "cuDeviceGetDevResource", device, c.byref(Resource()), 0)
gives(INVALID_CONTEXT, "cuCtxGetDevResource", None, c.byref(Resource()), MULTIPROCESSORS)
same = part_of("cuCtxGetDevResource", whole_context)
assert same.count == whole.count
possible = c.c_uint()
call("cuDevSmResourceSplitByCount", None, c.byref(possible), c.byref(whole), None, 0, 16)
assert 2 <= possible.value <= whole.count // 16, possible.value
groups, count, rest = (Resource * 2)(), c.c_uint(2), Resource()
call("cuDevSmResourceSplitByCount", groups, c.byref(count), c.byref(whole), c.byref(rest), 0, 16)
assert count.value == 2 and groups[0].count == groups[1].count >= 16, (count.value, groups[0].count)
assert groups[0].count * 2 + rest.count <= whole.count
gives(WRONG_CONFIGURATION, "cuDevSmResourceSplitByCount", groups, c.byref(count), c.byref(whole), None, 0, whole.count + 1)
gives(INVALID_VALUE, "cuDevResourceGenerateDesc", c.byref(c.c_void_p()), groups, 0)
first_part, second_part = (made("cuDevResourceGenerateDesc", c.byref(group), 1) for group in groups)
both_parts = made("cuDevResourceGenerateDesc", groups, 2)

# Contexts.
gives(INVALID_VALUE, "cuGreenCtxCreate", c.byref(c.c_void_p()), first_part, device, 0)
first, second, both = (made("cuGreenCtxCreate", part, device, DEFAULT_STREAM) for part in (first_part, second_part, both_parts))
first_context, second_context, both_context = (made("cuCtxFromGreenCtx", green) for green in (first, second, both))
assert len({context.value for context in (whole_context, first_context, second_context, both_context)}) == 4
for green, context, expected in ((first, first_context, groups[0].count), (both, both_context, 2 * groups[0].count)):
    for name, of in (("cuGreenCtxGetDevResource", green), ("cuCtxGetDevResource", context)):
        assert part_of(name, of).count == expected, (name, expected)
gives(INVALID_CONTEXT, "cuCtxSetCurrent", first)
identities = []
for green in (first, second):
    identity = c.c_uint64()
    call("cuGreenCtxGetId", green, c.byref(identity))
    identities.append(identity.value)
assert len(set(identities)) == 2

# Streams.
gives(INVALID_VALUE, "cuGreenCtxStreamCreate", c.byref(c.c_void_p()), first, 0, 0)
streams = [made("cuGreenCtxStreamCreate", green, NON_BLOCKING, 0) for green in (first, second, both)]
call("cuCtxPushCurrent_v2", first_context)
assert made("cuCtxGetDevice", kind=c.c_int).value == device.value
current = made("cuCtxGetCurrent")
assert current.value == first_context.value
ordinary, blocking = made("cuStreamCreate", NON_BLOCKING), made("cuStreamCreate", 0)
for stream in (streams[0], ordinary, blocking, None):
    of = c.c_void_p()
    call("cuStreamGetGreenCtx", stream, c.byref(of))
    assert of.value == first.value
    call("cuStreamGetCtx", stream, c.byref(of))
    assert of.value == first_context.value
    primary, green = c.c_void_p(), c.c_void_p()
    call("cuStreamGetCtx_v2", stream, c.byref(primary), c.byref(green))
    assert (primary.value, green.value) == (whole_context.value, first.value)
gives(INVALID_HANDLE, "cuStreamGetCtx_v2", c.c_void_p(2), c.byref(primary), c.byref(green))
call("cuCtxPopCurrent_v2", None)
of = c.c_void_p(1)
call("cuStreamGetGreenCtx", None, c.byref(of))
assert of.value is None


def multiprocessors(stream, context=None):
    """Where the blocks of a kernel ran."""
    if context:
        call("cuCtxPushCurrent_v2", context)
    launch(where, BLOCKS, 32, memory, c.c_uint32(20), stream=stream)
    call("cuStreamSynchronize", stream)
    if context:
        call("cuCtxPopCurrent_v2", None)
    return set(read(memory, BLOCKS))


def run_apart():
    """Each context's kernels run on no more multiprocessors than it has, and on none that another one has."""
    one, two = multiprocessors(streams[0]), multiprocessors(streams[1])
    assert 1 < len(one) <= groups[0].count and 1 < len(two) <= groups[1].count, (len(one), len(two))
    assert not one & two, one & two
    for stream, context in ((ordinary, None), (blocking, None), (None, first_context)):
        assert multiprocessors(stream, context) <= one, "of the same context, on other multiprocessors"
    together = multiprocessors(streams[2])
    assert len(together) <= 2 * groups[0].count and together <= one | two, len(together)
    assert len(multiprocessors(None)) > 2 * groups[0].count


event = made("cuEventCreate", DISABLE_TIMING)
call("cuCtxPushCurrent_v2", first_context)
done = made("cuEventCreate", DISABLE_TIMING)
call("cuCtxPopCurrent_v2", None)
expected = [0, 1]
for place, value in zip(places, expected):
    call("cuMemsetD32_v2", place, value, c.c_size_t(COUNT))
call("cuCtxSynchronize")


def advanced(value):
    return (value * 1664525 + 1013904223) % (1 << 32)


def pass_on():
    """Numbers go from one context to the other and back, in order by events, by a default stream, and by whole contexts."""
    length = c.c_size_t(4 * COUNT)
    launch(advance, 1, COUNT, places[0], stream=streams[0])
    call("cuEventRecord", event, streams[0])
    call("cuStreamWaitEvent", streams[1], event, 0)
    call("cuMemcpyDtoDAsync_v2", places[1], places[0], length, streams[1])
    launch(advance, 1, COUNT, places[1], stream=streams[1])
    # The first context's default stream comes behind its blocking stream, and that behind the default stream.
    call("cuGreenCtxRecordEvent", second, event)
    call("cuGreenCtxWaitEvent", first, event)
    later = made("cuGreenCtxStreamCreate", first, NON_BLOCKING, 0)
    call("cuCtxPushCurrent_v2", first_context)
    call("cuMemcpyDtoDAsync_v2", places[0], places[1], length, blocking)
    launch(advance, 1, COUNT, places[0])
    launch(advance, 1, COUNT, places[0], stream=blocking)
    call("cuCtxPopCurrent_v2", None)
    # All of it comes before what the whole device does next.
    call("cuCtxRecordEvent", first_context, done)
    call("cuCtxWaitEvent", whole_context, done)
    launch(advance, 1, COUNT, places[0])
    call("cuStreamWaitEvent", later, done, 0)
    call("cuCtxSynchronize")
    call("cuStreamDestroy_v2", later)
    expected[1] = advanced(advanced(expected[0]))
    expected[0] = advanced(advanced(advanced(expected[1])))
    for place, value in zip(places, expected):
        assert read(place, COUNT) == [value] * COUNT, (read(place, 1), value)


call("cuStreamBeginCapture_v2", streams[0], 0)
launch(advance, 1, COUNT, places[0], stream=streams[0])
launch(advance, 1, COUNT, places[0], stream=streams[0])
captured = c.c_void_p()
call("cuStreamEndCapture", streams[0], c.byref(captured))
graph = made("cuGraphInstantiateWithFlags", captured, c.c_ulonglong(0))


def launch_graph(stream):
    call("cuGraphLaunch", graph, stream)
    call("cuStreamSynchronize", stream)
    expected[0] = advanced(advanced(expected[0]))
    assert read(places[0], COUNT) == [expected[0]] * COUNT


for _ in range(4):
    run_apart()
    pass_on()
    launch_graph(streams[0])
    launch_graph(streams[1])
    away()

# A context that has a stream in a capture is asked nothing, and the capture is void.
call("cuStreamBeginCapture_v2", streams[1], 0)
gives(900, "cuGreenCtxRecordEvent", second, event)
assert driver.cuStreamEndCapture(streams[1], c.byref(captured)) != 0

# A part of a part.
of_both = part_of("cuGreenCtxGetDevResource", both)
count = c.c_uint(1)
call("cuDevSmResourceSplitByCount", groups, c.byref(count), c.byref(of_both), c.byref(rest), 0, of_both.least)
small = made("cuGreenCtxCreate", made("cuDevResourceGenerateDesc", groups, 1), device, DEFAULT_STREAM)
stream = made("cuGreenCtxStreamCreate", small, NON_BLOCKING, 0)
assert len(multiprocessors(stream)) <= groups[0].count < of_both.count
call("cuStreamDestroy_v2", stream)
call("cuGreenCtxDestroy", small)

# What is destroyed is of no use, and the others go on.
launch(advance, 1, COUNT, places[1], stream=streams[1])
call("cuGreenCtxDestroy", second)
gives(DESTROYED, "cuStreamSynchronize", streams[1])
gives(DESTROYED, "cuStreamDestroy_v2", streams[1])
call("cuCtxSynchronize")
expected[1] = advanced(expected[1])
assert read(places[1], COUNT) == [expected[1]] * COUNT
pass_again = made("cuGreenCtxCreate", second_part, device, DEFAULT_STREAM)
stream = made("cuGreenCtxStreamCreate", pass_again, NON_BLOCKING, 0)
launch(advance, 1, COUNT, places[1], stream=stream)
call("cuStreamSynchronize", stream)
expected[1] = advanced(expected[1])
assert read(places[1], COUNT) == [expected[1]] * COUNT
for stream in (stream, streams[0], streams[2], ordinary, blocking):
    call("cuStreamDestroy_v2", stream)
for green in (pass_again, first, both):
    call("cuGreenCtxDestroy", green)
assert len(multiprocessors(None)) > 1
print("green passed")
