"""Graphs that a program builds and edits node by node, or captures, through the driver's functions. After each step it says so
and, if it is told to wait, waits for a line: whoever runs it may move its memory meanwhile."""
import ctypes
import tempfile
import threading
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p

from driver_calls import begin, call, made, step
from driver_structures import Conditional, Copy, End, FillParams, HostParams, UpdateInfo

handles = []  # what the driver has addresses of stays where it is

PTX = b""".version 7.0
.target sm_70
.address_size 64
.extern .func cudaGraphSetConditional(.param .b64 handle, .param .b32 value);
.visible .entry add(.param .u64 p, .param .u32 n, .param .u32 v) {
  .reg .pred %p<2>; .reg .b32 %r<8>; .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [p]; ld.param.u32 %r1, [n]; ld.param.u32 %r2, [v];
  mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x; mad.lo.s32 %r6, %r3, %r4, %r5;
  setp.ge.s32 %p1, %r6, %r1; @%p1 bra DONE;
  mul.wide.s32 %rd3, %r6, 4; add.s64 %rd4, %rd1, %rd3;
  ld.global.u32 %r7, [%rd4]; add.s32 %r7, %r7, %r2; st.global.u32 [%rd4], %r7;
DONE: ret;
}
.visible .entry double(.param .u64 p) {
  .reg .b32 %r<2>; .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [p]; ld.global.u32 %r1, [%rd1]; add.s32 %r1, %r1, %r1; st.global.u32 [%rd1], %r1; ret;
}
.visible .entry step(.param .u64 p, .param .u64 more) {
  .reg .pred %p<2>; .reg .b32 %r<3>; .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [p]; ld.param.u64 %rd2, [more];
  ld.global.u32 %r1, [%rd1]; add.s32 %r1, %r1, 1; st.global.u32 [%rd1], %r1;
  setp.lt.s32 %p1, %r1, 10; @%p1 bra DONE;
  mov.u32 %r2, 0;
  { .param .b64 a; .param .b32 b; st.param.b64 [a], %rd2; st.param.b32 [b], %r2;
    call.uni cudaGraphSetConditional, (a, b); }
DONE: ret;
}
"""

context = begin()
module = made("cuModuleLoadData", PTX)
add, double, counter = (made("cuModuleGetFunction", module, name) for name in (b"add", b"double", b"step"))
N = 1000
device = made("cuMemAlloc_v2", c_size_t(4 * N), kind=c_uint64)
count = made("cuMemAlloc_v2", c_size_t(4), kind=c_uint64)
host = made("cuMemHostAlloc", c_size_t(4 * N), 0)
stream = made("cuStreamCreate", 1)
seen = ctypes.cast(host, ctypes.POINTER(c_uint))


class KernelParams(ctypes.Structure):
    _fields_ = [("function", c_void_p), ("grid", c_uint * 3), ("block", c_uint * 3), ("shared", c_uint),
                ("parameters", c_void_p), ("extra", c_void_p), ("kernel", c_void_p), ("context", c_void_p)]


def kernel_params(function, *values):
    array = (c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    handles.append((array, values))
    blocks = (N + 255) // 256 if function is add else 1
    return KernelParams(function, (blocks, 1, 1), (256 if function is add else 1, 1, 1), 0, ctypes.addressof(array), None, None, None)


def adding(amount, address=device, length=N):
    return kernel_params(add, c_uint64(address.value), c_uint(length), c_uint(amount))


def nodes(*list):
    return (c_void_p * len(list))(*list), c_size_t(len(list))


def new_graph():
    return made("cuGraphCreate", 0)


def add_kernel(graph, params, *behind):
    return made("cuGraphAddKernelNode_v2", graph, *nodes(*behind), byref(params))


def add_fill(graph, address, value, *behind, length=N):
    params = FillParams(address.value, 0, value, 4, length, 1)
    return made("cuGraphAddMemsetNode", graph, *nodes(*behind), byref(params), context)


def copy_params(length=N):
    return Copy(End(type=2, device=device.value), End(type=1, host=host.value), 4 * length, 1, 1)


def add_copy(graph, *behind):
    return made("cuGraphAddMemcpyNode", graph, *nodes(*behind), byref(copy_params()), context)


def chain(amount):
    graph = new_graph()
    clear = add_fill(graph, device, 0)
    kernel = add_kernel(graph, adding(amount), clear)
    return graph, clear, kernel, add_copy(graph, kernel)


def instantiate(graph, flags=0):
    return made("cuGraphInstantiateWithFlags", graph, c_uint64(flags))


def launch(exec):
    call("cuGraphLaunch", exec, stream)
    call("cuStreamSynchronize", stream)


def read(address, length=1):
    place = (c_uint * length)()
    call("cuMemcpyDtoH_v2", place, address, c_size_t(4 * length))
    return list(place)


def listed(name, graph):
    number = c_size_t()
    call(name, graph, None, byref(number))
    array = (c_void_p * number.value)()
    call(name, graph, array, byref(number))
    return list(array)


# Built, and launched again and again.
graph, clear, kernel, copy = chain(5)
exec = instantiate(graph)
step("built")
for _ in range(2):
    launch(exec)
    assert seen[0] == seen[N - 1] == 5
assert listed("cuGraphGetNodes", graph) == [clear.value, kernel.value, copy.value]
assert listed("cuGraphGetRootNodes", graph) == [clear.value]
types = []
for node in (clear, kernel, copy):
    place = c_uint()
    call("cuGraphNodeGetType", node, byref(place))
    types.append(place.value)
assert types == [2, 0, 1], types
number = c_size_t(4)
ends, data = ((c_void_p * 4)(), (c_void_p * 4)()), (c_uint64 * 4)()
call("cuGraphGetEdges_v2", graph, *ends, data, byref(number))
assert number.value == 2 and list(ends[0]) == [clear.value, kernel.value, None, None] and ends[1][1] == copy.value
number = c_size_t(1)
place = (c_void_p * 1)()
call("cuGraphNodeGetDependencies", kernel, place, byref(number))
assert place[0] == clear.value
call("cuGraphNodeGetDependentNodes", kernel, place, byref(number))
assert place[0] == copy.value

# What a node does can be asked for.
told = KernelParams()
call("cuGraphKernelNodeGetParams_v2", kernel, byref(told))
assert told.function == add.value and list(told.grid) == [4, 1, 1] and list(told.block) == [256, 1, 1]
values = ctypes.cast(told.parameters, ctypes.POINTER(c_void_p))
assert ctypes.cast(values[0], ctypes.POINTER(c_uint64))[0] == device.value
assert ctypes.cast(values[2], ctypes.POINTER(c_uint))[0] == 5
# It may be changed and given back, again and again.
for amount in (6, 7, 5):
    wanted = c_uint(amount)
    values[2] = ctypes.addressof(wanted)
    call("cuGraphKernelNodeSetParams_v2", kernel, byref(told))
    again = KernelParams()
    call("cuGraphKernelNodeGetParams_v2", kernel, byref(again))
    assert again.parameters == told.parameters, "what was told stays where it is"
    assert ctypes.cast(values[2], ctypes.POINTER(c_uint))[0] == amount
no_place, untouched = c_size_t(0), (c_void_p * 1)(1)
call("cuGraphGetNodes", graph, untouched, byref(no_place), expected=1)
assert (no_place.value, untouched[0]) == (0, 1)
filled = FillParams()
call("cuGraphMemsetNodeGetParams", clear, byref(filled))
assert (filled.address, filled.element, filled.width, filled.height) == (device.value, 4, N, 1)
copied = Copy()
call("cuGraphMemcpyNodeGetParams", copy, byref(copied))
assert (copied.source.type, copied.source.device, copied.width) == (2, device.value, 4 * N)
assert (copied.destination.type, copied.destination.host) == (1, host.value)

# Parameters of the launchable graph, then of the graph.
call("cuGraphExecKernelNodeSetParams_v2", exec, kernel, byref(adding(9)))
step("kernel parameters")
launch(exec)
assert seen[N - 1] == 9
value = FillParams(device.value, 0, 100, 4, N, 1)
call("cuGraphExecMemsetNodeSetParams", exec, clear, byref(value), context)
call("cuGraphExecMemcpyNodeSetParams", exec, copy, byref(copy_params(N // 2)), context)
seen[N - 1] = 1
launch(exec)
assert seen[0] == 109 and seen[N - 1] == 1
call("cuGraphExecKernelNodeSetParams_v2", exec, clear, byref(adding(9)), expected=1)
call("cuGraphNodeSetEnabled", exec, kernel, 0)
enabled = c_uint(7)
call("cuGraphNodeGetEnabled", exec, kernel, byref(enabled))
assert enabled.value == 0
step("disabled")
launch(exec)
assert seen[0] == 100
call("cuGraphNodeSetEnabled", exec, kernel, 1)
call("cuGraphKernelNodeSetParams_v2", kernel, byref(adding(3)))
launch(exec)
assert seen[0] == 109, "the launchable graph stays as it is"

# Updates: alike, of other kinds, and of another shape.
other = chain(21)
info = UpdateInfo()
call("cuGraphExecUpdate_v2", exec, other[0], byref(info))
assert info.result == 0
step("updated")
launch(exec)
assert seen[1] == seen[N - 1] == 21
call("cuGraphDestroyNode", other[3])
call("cuGraphExecUpdate_v2", exec, other[0], byref(info), expected=910)
assert info.result == 2 and not info.node
extra = add_fill(other[0], count, 0, other[2], length=1)
call("cuGraphExecUpdate_v2", exec, other[0], byref(info), expected=910)
assert info.result == 3 and info.node == extra.value
launch(exec)
assert seen[1] == 21

# Edges, clones, children, and what cannot be.
tree = new_graph()
one, two = add_fill(tree, device, 1), add_kernel(tree, adding(2))
joined = made("cuGraphAddEmptyNode", tree, *nodes(one, two))
call("cuGraphAddDependencies", tree, nodes(one)[0], nodes(two)[0], c_size_t(1))
call("cuGraphAddDependencies", tree, nodes(one)[0], nodes(two)[0], c_size_t(1), expected=1)
last = made("cuGraphAddChildGraphNode", tree, *nodes(joined), graph)
inner = c_void_p()
call("cuGraphChildGraphNodeGetGraph", last, byref(inner))
inner_nodes = listed("cuGraphGetNodes", inner)
assert len(inner_nodes) == 3 and inner.value != graph.value
call("cuGraphDestroy", inner, expected=1)
call("cuGraphKernelNodeSetParams_v2", c_void_p(inner_nodes[1]), byref(adding(30)))
clone = made("cuGraphClone", tree)
found = made("cuGraphNodeFindInClone", two, clone)
assert found.value != two.value
call("cuGraphNodeFindInClone", byref(c_void_p()), kernel, clone, expected=1)
call("cuGraphKernelNodeSetParams_v2", found, byref(adding(7)))
branches = [instantiate(tree), instantiate(clone)]
call("cuGraphRemoveDependencies", tree, nodes(one)[0], nodes(two)[0], c_size_t(1))
call("cuGraphAddDependencies", tree, nodes(joined)[0], nodes(one)[0], c_size_t(1))
call("cuGraphInstantiateWithFlags", byref(c_void_p()), tree, c_uint64(0), expected=1)
call("cuGraphInstantiateWithFlags", byref(c_void_p()), clone, c_uint64(4), expected=801)
step("children")
for exec_of_branch in branches:
    launch(exec_of_branch)
    assert seen[0] == 30 and read(device) == [30]
call("cuGraphExecKernelNodeSetParams_v2", branches[0], c_void_p(inner_nodes[1]), byref(adding(31)))
launch(branches[0])
assert seen[0] == 31
with tempfile.NamedTemporaryFile() as file:
    call("cuGraphDebugDotPrint", clone, file.name.encode(), 1)
    assert "digraph" in (text := file.read().decode()) and "add" in text and "->" in text
    call("cuGraphDebugDotPrint", clone, file.name.encode(), 0)
    assert "shared memory" in text and "shared memory" not in open(file.name).read()
for thing in (tree, clone):
    call("cuGraphDestroy", thing)
call("cuGraphNodeGetType", two, byref(c_uint()), expected=1)

# Host functions, in order with what is before and behind them, at every launch.
Function = ctypes.CFUNCTYPE(None, c_void_p)
called = []


def note(data):
    called.append((data, seen[0]))
    seen[1] = 77


function = Function(note)
talk = new_graph()
first = add_fill(talk, device, 4)
out = add_copy(talk, first)
hosts = made("cuGraphAddHostNode", talk, *nodes(out), byref(HostParams(ctypes.cast(function, c_void_p), 41)))
back = Copy(End(type=1, host=host.value), End(type=2, device=device.value), 8, 1, 1)
behind = made("cuGraphAddMemcpyNode", talk, *nodes(hosts), byref(back), context)
talking = instantiate(talk)
step("host functions")
for turn in range(2):
    launch(talking)
    assert called == [(41, 4)] * (turn + 1) and read(device, 2) == [4, 77]
call("cuGraphExecHostNodeSetParams", talking, hosts, byref(HostParams(ctypes.cast(function, c_void_p), 42)))
launch(talking)
assert called[-1] == (42, 4) and len(called) == 3

# Events inside and outside.
event = made("cuEventCreate", 0)
marked = new_graph()
recorded = made("cuGraphAddEventRecordNode", marked, *nodes(add_fill(marked, device, 6)), event)
place = c_void_p()
call("cuGraphEventRecordNodeGetEvent", recorded, byref(place))
assert place.value == event.value
waited = new_graph()
made("cuGraphAddEventWaitNode", waited, *nodes(), event)
marking, waiting = instantiate(marked), instantiate(waited)
step("events")
call("cuGraphLaunch", marking, stream)
other_stream = made("cuStreamCreate", 1)
call("cuGraphLaunch", waiting, other_stream)
call("cuMemcpyDtoHAsync_v2", host, device, c_size_t(4), other_stream)
call("cuStreamSynchronize", other_stream)
call("cuEventSynchronize", event)
assert seen[0] == 6

# A loop until a kernel says stop, and a body that is captured.
loop = new_graph()
more = made("cuGraphConditionalHandleCreate", loop, context, 1, 1, kind=c_uint64)
zero = add_fill(loop, count, 0, length=1)
condition = Conditional(type=13, handle=more.value, kind=1, size=1)
looped = c_void_p()
call("cuGraphAddNode_v2", byref(looped), loop, nodes(zero)[0], None, c_size_t(1), byref(condition))
body = condition.graphs[0]
add_kernel(c_void_p(body), kernel_params(counter, c_uint64(count.value), more))
call("cuGraphClone", byref(c_void_p()), loop, expected=801)
looping = instantiate(loop)
step("a loop")
for _ in range(2):
    launch(looping)
    assert read(count) == [10]
chosen = new_graph()
which = made("cuGraphConditionalHandleCreate", chosen, context, 1, 1, kind=c_uint64)
condition = Conditional(type=13, handle=which.value, kind=2, size=3)
call("cuGraphAddNode_v2", byref(looped), chosen, None, None, c_size_t(0), byref(condition))
for index in range(3):
    call("cuStreamBeginCaptureToGraph", stream, c_void_p(condition.graphs[index]), None, None, c_size_t(0), 2)
    call("cuMemsetD32Async", count, 50 + index, c_size_t(1), stream)
    call("cuStreamEndCapture", stream, byref(place))
    assert place.value == condition.graphs[index]
choosing = instantiate(chosen)
step("a choice")
launch(choosing)
assert read(count) == [51]

# Captured: dependencies that the program changes, a node that it adds, host functions, memory, a graph that it launches.
call("cuStreamBeginCapture_v2", stream, 2)
call("cuMemsetD32Async", device, 1, c_size_t(N), stream)
status, number, captured, dependencies = c_int(), c_size_t(), c_void_p(), ctypes.POINTER(c_void_p)()
call("cuStreamGetCaptureInfo_v2", stream, byref(status), byref(c_uint64()), byref(captured), byref(dependencies), byref(number))
assert status.value == 1 and number.value == 1
call("cuGraphInstantiateWithFlags", byref(c_void_p()), captured, c_uint64(0), expected=1)
added = add_kernel(captured, adding(10), dependencies[0])
call("cuStreamUpdateCaptureDependencies", stream, nodes(added)[0], c_size_t(1), 1)
address = c_uint64()
call("cuMemAllocAsync", byref(address), c_size_t(4 * N), stream)
call("cuMemcpyDtoDAsync_v2", address, device, c_size_t(4 * N), stream)
call("cuMemcpyDtoDAsync_v2", device, address, c_size_t(2 * N), stream)
call("cuMemFreeAsync", address, stream)
again = c_uint64()
call("cuMemAllocAsync", byref(again), c_size_t(4 * N), stream)
assert again.value == address.value, "what the graph freed is used again"
call("cuMemcpyDtoHAsync_v2", host, device, c_size_t(4 * N), stream)
call("cuLaunchHostFunc", stream, function, c_void_p(43))
call("cuGraphLaunch", choosing, stream, expected=900)
call("cuGraphLaunch", branches[1], stream)
call("cuStreamEndCapture", stream, byref(place))
assert place.value == captured.value
capturing = instantiate(captured)
used = c_uint64()
call("cuDeviceGetGraphMemAttribute", 0, 0, byref(used))
assert used.value >= 4 * N
call("cuGraphDestroy", captured)
step("captured")
for _ in range(2):
    launch(capturing)
    assert called[-1] == (43, 11) and seen[0] == 30 and read(again, 1) == [11]
call("cuGraphExecDestroy", capturing)
assert read(again, 1) == [11], "the program has it until it frees it"
call("cuMemFreeAsync", again, stream)
call("cuStreamSynchronize", stream)
call("cuDeviceGetGraphMemAttribute", 0, 0, byref(used))
assert used.value == 0
call("cuMemFreeAsync", again, stream, expected=1)

# What one graph allocates another one frees, by a node or in a capture; its launch gives it back.
def giver_of(value):
    call("cuStreamBeginCapture_v2", stream, 2)
    call("cuMemAllocAsync", byref(given := c_uint64()), c_size_t(4 * N), stream)
    call("cuMemsetD32Async", given, value, c_size_t(N), stream)
    call("cuStreamEndCapture", stream, byref(place))
    return given, instantiate(place), c_void_p(place.value)


def used_now():
    call("cuDeviceGetGraphMemAttribute", 0, 0, byref(used))
    return used.value


for by_capture in (False, True):
    given, giving, graph_of_giver = giver_of(12)
    if by_capture:
        call("cuStreamBeginCapture_v2", stream, 2)
        call("cuMemcpyDtoDAsync_v2", device, given, c_size_t(4 * N), stream)
        call("cuMemFreeAsync", device, stream, expected=1)
        call("cuMemFreeAsync", given, stream)
        call("cuStreamEndCapture", stream, byref(place))
        taker = c_void_p(place.value)
    else:
        taker = new_graph()
        taken = add_kernel(taker, adding(1, given))
        params = Copy(End(type=2, device=given.value), End(type=2, device=device.value), 4 * N, 1, 1)
        taken = made("cuGraphAddMemcpyNode", taker, *nodes(taken), byref(params), context)
        made("cuGraphAddMemFreeNode", taker, *nodes(taken), given)
    taking = instantiate(taker)
    step("given and taken")
    for _ in range(2):
        launch(giving)
        launch(taking)
        assert read(device) == [12 if by_capture else 13]
    launch(giving)
    call("cuGraphExecDestroy", giving)
    call("cuGraphDestroy", graph_of_giver)
    assert used_now() >= 4 * N, "the program has it"
    # It is taken by the launch, and goes when that is over.
    opened = threading.Event()
    holds = Function(lambda _: opened.wait(60))
    handles.append(holds)
    call("cuLaunchHostFunc", stream, holds, None)
    call("cuGraphLaunch", taking, stream)
    assert used_now() == 0
    call("cuMemFreeAsync", given, stream, expected=1)
    opened.set()
    call("cuStreamSynchronize", stream)
    assert read(device) == [12 if by_capture else 13]

# Captures whose streams part and do not meet again.
call("cuStreamBeginCapture_v2", stream, 2)
mark = made("cuEventCreate", 2)
call("cuEventRecord", mark, stream)
call("cuStreamWaitEvent", other_stream, mark, 0)
call("cuMemsetD32Async", device, 1, c_size_t(1), other_stream)
call("cuStreamEndCapture", stream, byref(place), expected=904)
call("cuStreamWaitEvent", other_stream, mark, 0, expected=907)
call("cuMemsetD32Async", device, 2, c_size_t(1), other_stream)
call("cuStreamSynchronize", other_stream)
assert read(device) == [2]

# User objects live as long as graphs refer to them.
gone = []
done = threading.Event()


def destroyed(data):
    gone.append(data)
    done.set()


destructor = Function(destroyed)
holder = new_graph()
add_fill(holder, device, 1)
thing = made("cuUserObjectCreate", c_void_p(5), destructor, 1, 1)
call("cuGraphRetainUserObject", holder, thing, 1, 1)
holding = instantiate(holder)
call("cuGraphDestroy", holder)
launch(holding)
assert not gone
call("cuGraphExecDestroy", holding)
assert done.wait(20) and gone == [5]
call("cuUserObjectRelease", thing, 1, expected=1)
call("cuGraphLaunch", holding, stream, expected=1)
call("cuCtxSynchronize")
print("graphs passed", flush=True)
