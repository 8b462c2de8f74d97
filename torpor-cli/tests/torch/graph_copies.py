"""Copies of pageable memory in graphs, captured and as nodes, by the driver's functions and the runtime's: each launch reads and
writes the program's memory in its order. After each step it says so and, if it is told to wait, waits for a line: whoever
runs it may move its memory meanwhile."""
import ctypes
import faulthandler
import threading
from ctypes import byref, c_char, c_int, c_size_t, c_uint, c_uint64, c_void_p

from driver_calls import begin, call, made, step
from driver_structures import Conditional, Copy, End, HostParams, UpdateInfo

faulthandler.dump_traceback_later(100, exit=True)
N = 1000
BYTES = c_size_t(4 * N)
kept = []

PTX = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry add(.param .u64 p, .param .u32 n, .param .u32 v) {
  .reg .pred %p<2>; .reg .b32 %r<8>; .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [n]; ld.param.u32 %r2, [v];
  mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x; mad.lo.s32 %r6, %r3, %r4, %r5;
  setp.ge.s32 %p1, %r6, %r1; @%p1 bra DONE;
  mul.wide.s32 %rd3, %r6, 4; add.s64 %rd4, %rd1, %rd3;
  ld.global.u32 %r7, [%rd4]; add.s32 %r7, %r7, %r2; st.global.u32 [%rd4], %r7;
DONE: ret;
}
"""

context = begin()
module = made("cuModuleLoadData", PTX)
add = made("cuModuleGetFunction", module, b"add")
stream, other = made("cuStreamCreate", 1), made("cuStreamCreate", 1)
Words = c_uint * N
Function = ctypes.CFUNCTYPE(None, c_void_p)


class End2D(ctypes.Structure):
    _fields_ = [("x", c_size_t), ("y", c_size_t), ("type", c_uint), ("host", c_void_p), ("device", c_uint64), ("array", c_void_p),
                ("pitch", c_size_t)]


class Copy2D(ctypes.Structure):
    _fields_ = [("source", End2D), ("destination", End2D), ("width", c_size_t), ("height", c_size_t)]


class CopyNode(ctypes.Structure):
    _fields_ = [("type", c_uint), ("reserved", c_uint * 3), ("flags", c_int), ("more", c_int), ("context", c_void_p), ("copy", Copy),
                ("rest", c_uint64 * 2)]


# Of the runtime.
class Pitched(ctypes.Structure):
    _fields_ = [("address", c_void_p), ("pitch", c_size_t), ("width", c_size_t), ("height", c_size_t)]


class Copy3D(ctypes.Structure):
    _fields_ = [("from_array", c_void_p), ("from_position", c_size_t * 3), ("source", Pitched), ("to_array", c_void_p),
                ("to_position", c_size_t * 3), ("destination", Pitched), ("extent", c_size_t * 3), ("kind", c_int)]


def device_words():
    return made("cuMemAlloc_v2", BYTES, kind=c_uint64)


def filled(value):
    return Words(*([value] * N))


def both(words):
    """Its first and its last, of which a part of the copy would leave one."""
    return words[0], words[N - 1]


def launch_add(device, amount, where=stream):
    values = (c_uint64(device.value), c_uint(N), c_uint(amount))
    array = (c_void_p * 3)(*(ctypes.addressof(value) for value in values))
    call("cuLaunchKernel", add, 4, 1, 1, 256, 1, 1, 0, where, array, None)


def captured(what):
    call("cuStreamBeginCapture_v2", stream, 2)
    what()
    return made_by_end()


def made_by_end():
    graph = c_void_p()
    call("cuStreamEndCapture", stream, byref(graph))
    return graph


def instantiate(graph):
    return made("cuGraphInstantiateWithFlags", graph, c_uint64(0))


def launch(exec, where=stream):
    call("cuGraphLaunch", exec, where)


def wait(where=stream):
    call("cuStreamSynchronize", where)


def host(array):
    return End(type=1, host=ctypes.addressof(array))


def on_device(address):
    return End(type=2, device=address.value)


def row(source, destination, length=4 * N):
    return Copy(source, destination, length, 1, 1)


def nodes(*list):
    return (c_void_p * len(list))(*list), c_size_t(len(list))


def add_copy(graph, copy, *behind):
    return made("cuGraphAddMemcpyNode", graph, *nodes(*behind), byref(copy), context)


def add_kernel(graph, device, amount, *behind):
    class Params(ctypes.Structure):
        _fields_ = [("function", c_void_p), ("grid", c_uint * 3), ("block", c_uint * 3), ("shared", c_uint),
                    ("parameters", c_void_p), ("extra", c_void_p), ("kernel", c_void_p), ("context", c_void_p)]
    values = (c_uint64(device.value), c_uint(N), c_uint(amount))
    array = (c_void_p * 3)(*(ctypes.addressof(value) for value in values))
    params = Params(add, (4, 1, 1), (256, 1, 1), 0, ctypes.addressof(array), None, None, None)
    return made("cuGraphAddKernelNode_v2", graph, *nodes(*behind), byref(params))


def gate(where):
    """Holds up a stream; gives what lets it go."""
    opened = threading.Event()
    function = Function(lambda _: opened.wait(60))
    kept.append(function)
    call("cuLaunchHostFunc", where, function, None)
    return opened


device = device_words()


def round_trip(words, amount=1, place=device):
    call("cuMemcpyHtoDAsync_v2", place, words, BYTES, stream)
    launch_add(place, amount)
    call("cuMemcpyDtoHAsync_v2", words, place, BYTES, stream)


# Captured: every launch reads what is there then, behind the launch before.
words = filled(5)
graph = captured(lambda: round_trip(words))
exec = instantiate(graph)
step("captured")
assert both(words) == (5, 5), "nothing is copied by the capture"
launch(exec)
wait()
assert both(words) == (6, 6)
ctypes.memmove(words, filled(100), 4 * N)
step("changed")
for _ in range(5):
    launch(exec)
wait()
assert both(words) == (105, 105)
finished = made("cuEventCreate", 0)
launch(exec)
call("cuEventRecord", finished, stream)
call("cuEventSynchronize", finished)
assert both(words) == (106, 106)

# In several streams, one launch comes behind the other all the same.
opened, passed = gate(stream), threading.Event()
kept.append(tell := Function(lambda _: passed.set()))
for where in (stream, other, stream, other):
    launch(exec, where)
call("cuLaunchHostFunc", other, tell, None)
for where in (stream, other):
    call("cuStreamQuery", where, expected=600)
assert not passed.wait(0.5) and both(words) == (106, 106)
opened.set()
wait(other)
assert passed.is_set() and both(words) == (110, 110)
for _ in range(10):
    launch(exec, other)
    launch(exec, stream)
call("cuCtxSynchronize")
assert both(words) == (130, 130)
brief = made("cuStreamCreate", 1)
launch(exec, brief)
call("cuStreamDestroy_v2", brief)
launch(exec)
wait()
assert both(words) == (132, 132)

# As nodes, with host functions that write what the graph copies and read what it copied.
source, result, read = filled(1), filled(0), []
writes = Function(lambda _: ctypes.memmove(source, filled(source[0] + 1), 4 * N) and None)
reads = Function(lambda _: read.append(both(result)))
hosts = [HostParams(ctypes.cast(function, c_void_p), None) for function in (writes, reads)]
built = made("cuGraphCreate", 0)
before = made("cuGraphAddHostNode", built, *nodes(), byref(hosts[0]))
up = add_copy(built, row(host(source), on_device(device)), before)
kernel = add_kernel(built, device, 10, up)
down = add_copy(built, row(on_device(device), host(result)), kernel)
after = made("cuGraphAddHostNode", built, *nodes(down), byref(hosts[1]))
exec_of_nodes = instantiate(built)
step("nodes")
for _ in range(3):
    launch(exec_of_nodes)
wait()
assert read == [(12, 12), (13, 13), (14, 14)], read
kinds = []
for node in (up, down):
    kind, told = c_uint(), Copy()
    call("cuGraphNodeGetType", node, byref(kind))
    call("cuGraphMemcpyNodeGetParams", node, byref(told))
    kinds.append((kind.value, told.source.type, told.destination.type, told.width))
assert kinds == [(1, 1, 2, 4 * N), (1, 2, 1, 4 * N)], kinds
assert told.destination.host == ctypes.addressof(result) and told.source.device == device.value

# Parameters of the launchable graph, of the graph, clones, children, updates; switched off and on.
second, third = filled(0), filled(0)
pinned = ctypes.cast(made("cuMemHostAlloc", BYTES, 0), ctypes.POINTER(c_uint))
call("cuGraphExecMemcpyNodeSetParams", exec_of_nodes, down, byref(row(on_device(device), host(second))), context)
step("parameters")
launch(exec_of_nodes)
wait()
assert (both(result), both(second)) == ((14, 14), (15, 15))
to_pinned = row(on_device(device), End(type=1, host=ctypes.addressof(pinned.contents)))
for copy, seen in ((to_pinned, pinned), (row(on_device(device), host(third)), third)):
    call("cuGraphExecMemcpyNodeSetParams", exec_of_nodes, down, byref(copy), context)
    launch(exec_of_nodes)
    wait()
    assert both(seen) == (source[0] + 10, source[0] + 10)
call("cuGraphNodeSetEnabled", exec_of_nodes, up, 0)
launch(exec_of_nodes)
wait()
assert both(third) == (27, 27), "the device's words once more"
call("cuGraphNodeSetEnabled", exec_of_nodes, up, 1)
call("cuGraphMemcpyNodeSetParams", down, byref(row(on_device(device), host(second))))
clone = made("cuGraphClone", built)
parent = made("cuGraphCreate", 0)
made("cuGraphAddChildGraphNode", parent, *nodes(), built)
for graph_of_both in (clone, parent):
    exec_of_copy = instantiate(graph_of_both)
    step("graphs of graphs")
    launch(exec_of_copy)
    wait()
    assert both(second) == (source[0] + 10, source[0] + 10)
    call("cuGraphExecDestroy", exec_of_copy)
fresh = filled(40)
opened = gate(stream)
launch(exec)
other_graph = captured(lambda: round_trip(fresh, 2))
info = UpdateInfo()
call("cuGraphExecUpdate_v2", exec, other_graph, byref(info))
assert info.result == 0
launch(exec, other)
opened.set()
step("updated")
wait(other)
assert (both(words), both(fresh)) == ((133, 133), (42, 42)), "the launch before did what it was launched for"
call("cuStreamBeginCapture_v2", stream, 2)
call("cuGraphLaunch", exec, stream)
call("cuGraphLaunch", exec, stream)
twice = instantiate(made_by_end())
launch(twice)
launch(exec)
wait()
assert both(fresh) == (48, 48)

# Destroyed while it runs, or is still to run.
ended = filled(70)
graph = captured(lambda: round_trip(ended))
short = instantiate(graph)
call("cuGraphDestroy", graph)
opened = gate(stream)
launch(short)
launch(short, other)
call("cuGraphExecDestroy", short)
step("destroyed")
opened.set()
wait(other)
assert both(ended) == (72, 72)

# Rows and boxes: pitches on both sides, and nothing between the rows is written.
Wide = c_char * 4096
wide, narrow = Wide(*bytes(index % 251 for index in range(4096))), Wide(*b"." * 4096)
plane = made("cuMemAlloc_v2", c_size_t(4096), kind=c_uint64)
call("cuMemsetD8_v2", plane, ord("-"), c_size_t(4096))
# The graph is launched in a stream that does not wait for the legacy one.
call("cuCtxSynchronize")
flat = Copy2D(End2D(x=3, y=1, type=1, host=ctypes.addressof(wide), pitch=100), End2D(type=2, device=plane.value, pitch=64), 10, 4)
flat_back = Copy2D(End2D(type=2, device=plane.value, pitch=64), End2D(x=1, type=1, host=ctypes.addressof(narrow), pitch=20), 10, 4)
box = Copy(End(type=1, host=ctypes.addressof(wide), pitch=32, height=8), End(type=2, device=plane.value + 1024, pitch=16, height=4),
           9, 3, 2)
box_back = Copy(End(type=2, device=plane.value + 1024, pitch=16, height=4),
                End(z=1, type=1, host=ctypes.addressof(narrow) + 1000, pitch=24, height=5), 9, 3, 2)


def boxes():
    call("cuMemcpy2DAsync_v2", byref(flat), stream)
    call("cuMemcpy3DAsync_v2", byref(box), stream)
    call("cuMemcpy3DAsync_v2", byref(box_back), stream)
    call("cuMemcpy2DAsync_v2", byref(flat_back), stream)


expected = bytearray(b"." * 4096)
for line in range(4):
    expected[1 + 20 * line:11 + 20 * line] = wide.raw[103 + 100 * line:113 + 100 * line]
for slice in range(2):
    for line in range(3):
        to, at = 1000 + ((slice + 1) * 5 + line) * 24, (slice * 8 + line) * 32
        expected[to:to + 9] = wide.raw[at:at + 9]
graph = captured(boxes)
number = c_size_t()
call("cuGraphGetNodes", graph, None, byref(number))
assert number.value == 4, "each is one node"
exec_of_boxes = instantiate(graph)
step("boxes")
launch(exec_of_boxes)
wait()
assert narrow.raw == expected
on_the_device = Wide()
call("cuMemcpyDtoH_v2", on_the_device, plane, c_size_t(4096))
assert on_the_device.raw[:64] == wide.raw[103:113] + b"-" * 54

# Between two places of the host, and longer than what a stream stages at once.
one, two = filled(3), filled(0)
pinned[0] = pinned[N - 1] = 9


def on_host():
    call("cuMemcpyAsync", two, one, BYTES, stream)
    call("cuMemcpyAsync", one, pinned, BYTES, stream)


exec_on_host = instantiate(captured(on_host))
step("on the host")
launch(exec_on_host)
wait()
assert (both(two), both(one)) == ((3, 3), (9, 9))
LONG = 9 << 20
long_source, long_result = (c_char * LONG)(*b"first"), (c_char * LONG)()
long_source[LONG - 1] = b"!"
long_device = made("cuMemAlloc_v2", c_size_t(LONG), kind=c_uint64)


def long_copies():
    call("cuMemcpyHtoDAsync_v2", long_device, long_source, c_size_t(LONG), stream)
    call("cuMemcpyDtoHAsync_v2", long_result, long_device, c_size_t(LONG), stream)


for _ in range(3):
    exec_of_long = instantiate(captured(long_copies))
    launch(exec_of_long)
    call("cuGraphExecDestroy", exec_of_long)
    wait()
    assert (long_result[:5], long_result[LONG - 1]) == (b"first", b"!")
    ctypes.memset(long_result, 0, LONG)

# What CUDA does not have either: the bodies of conditions, and copies that wait, in a capture.
loop = made("cuGraphCreate", 0)
more = made("cuGraphConditionalHandleCreate", loop, context, 1, 1, kind=c_uint64)
condition = Conditional(type=13, handle=more.value, kind=0, size=1)
call("cuGraphAddNode_v2", byref(c_void_p()), loop, None, None, c_size_t(0), byref(condition))
add_copy(c_void_p(condition.graphs[0]), row(host(source), on_device(device)))
call("cuGraphInstantiateWithFlags", byref(c_void_p()), loop, c_uint64(0), expected=801)
call("cuGraphAddMemcpyNode", byref(c_void_p()), built, None, c_size_t(0), byref(row(host(source), End(type=2, device=4096))),
     context, expected=1)
PER_THREAD = c_void_p(2)
call("cuStreamBeginCapture_v2", PER_THREAD, 2)
call("cuMemcpyHtoD_v2_ptds", device, source, BYTES, expected=900)
call("cuStreamEndCapture", PER_THREAD, byref(c_void_p()), expected=901)

# The runtime's functions.
TO_DEVICE, FROM_DEVICE, DEFAULT = 1, 2, 4
words, flat_wide, flat_narrow = filled(7), Wide(*wide.raw), Wide(*b"." * 4096)


def by_runtime():
    call("cudaMemcpyAsync", c_void_p(device.value), words, BYTES, TO_DEVICE, stream)
    launch_add(device, 1)
    call("cudaMemcpyAsync", words, c_void_p(device.value), BYTES, DEFAULT, stream)
    call("cudaMemcpy2DAsync", c_void_p(plane.value), c_size_t(64), flat_wide, c_size_t(100), c_size_t(10), c_size_t(4), TO_DEVICE,
         stream)
    call("cudaMemcpy2DAsync", flat_narrow, c_size_t(20), c_void_p(plane.value), c_size_t(64), c_size_t(10), c_size_t(4), FROM_DEVICE,
         stream)


exec_by_runtime = made("cudaGraphInstantiate", captured(by_runtime), c_uint64(0))
step("runtime")
for _ in range(3):
    call("cudaGraphLaunch", exec_by_runtime, stream)
call("cudaStreamSynchronize", stream)
assert both(words) == (10, 10)
for line in range(4):
    assert flat_narrow.raw[20 * line:20 * line + 20] == wide.raw[100 * line:100 * line + 10] + b"." * 10
graph = made("cudaGraphCreate", 0)
up = made("cudaGraphAddMemcpyNode1D", graph, *nodes(), c_void_p(device.value), words, BYTES, TO_DEVICE)
kernel = add_kernel(graph, device, 5, up)
description = Copy3D(source=Pitched(device.value, 4 * N, 4 * N, 1), destination=Pitched(ctypes.addressof(result), 4 * N, 4 * N, 1),
                     extent=(4 * N, 1, 1), kind=FROM_DEVICE)
down = made("cudaGraphAddMemcpyNode", graph, *nodes(kernel), byref(description))
exec_of_nodes = made("cudaGraphInstantiate", graph, c_uint64(0))
call("cudaGraphLaunch", exec_of_nodes, stream)
call("cudaStreamSynchronize", stream)
assert both(result) == (15, 15)
told = Copy3D()
call("cudaGraphMemcpyNodeGetParams", down, byref(told))
assert (told.source.address, told.destination.address, told.extent[0]) == (device.value, ctypes.addressof(result), 4 * N)
call("cudaGraphExecMemcpyNodeSetParams1D", exec_of_nodes, up, c_void_p(device.value), filled(30), BYTES, TO_DEVICE)
kept.append(replaced := filled(60))
call("cudaGraphExecMemcpyNodeSetParams1D", exec_of_nodes, up, c_void_p(device.value), replaced, BYTES, TO_DEVICE)
call("cudaGraphLaunch", exec_of_nodes, stream)
call("cudaStreamSynchronize", stream)
assert both(result) == (65, 65)
generic = CopyNode(type=1, context=context, copy=row(host(words), on_device(device)))
graph = made("cuGraphCreate", 0)
up = c_void_p()
call("cuGraphAddNode_v2", byref(up), graph, None, None, c_size_t(0), byref(generic))
add_copy(graph, row(on_device(device), host(result)), up)
launch(generic_exec := instantiate(graph))
wait()
assert both(result) == (10, 10)

for thing in (exec, twice, exec_of_nodes, exec_of_boxes, exec_on_host, exec_by_runtime, generic_exec):
    call("cuGraphExecDestroy", thing)
call("cuGraphLaunch", exec, stream, expected=1)
call("cuCtxSynchronize")
print("graph copies passed", flush=True)
