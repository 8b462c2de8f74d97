"""Kernels use memory that the program had before, wherever it begins and ends: what the program wrote before a launch they see,
what they wrote it sees after a synchronisation, and nobody else's bytes beside it change. By the driver's functions."""
import ctypes as c
import faulthandler
import mmap
import os
import threading
import time
from ctypes import byref

from driver_calls import begin, call, cuda, made, runtime
from leaving import away

faulthandler.dump_traceback_later(300, exit=True)
u64, size = c.c_uint64, c.c_size_t
PAGE, NOT_READY = 4096, 600
begin()
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
""")
add = made("cuModuleGetFunction", MODULE, b"add")
stream, event = made("cuStreamCreate", 1), made("cuEventCreate", 2)
Function = c.CFUNCTYPE(None, c.c_void_p)
kept = []


def launch_add(address, count, value, where=stream):
    values = u64(address), c.c_uint(count), c.c_uint(value)
    parameters = (c.c_void_p * 3)(*map(c.addressof, values))
    call("cuLaunchKernel", add, count // 256 + 1, 1, 1, 256, 1, 1, 0, where, parameters, None)


def host_function(what, where=stream):
    function = Function(lambda _: what())
    kept.append(function)
    call("cuLaunchHostFunc", where, function, None)


class Memory:
    """Words of the program's at an address, registered."""

    def __init__(self, address, count):
        self.address, self.count = address, count
        self.words = (c.c_uint32 * count).from_address(address)
        self.words[:] = range(count)
        call("cuMemHostRegister_v2", u64(address), size(4 * count), 0)
        self.device = made("cuMemHostGetDevicePointer_v2", u64(address), 0, kind=u64).value

    def unregister(self):
        call("cuMemHostUnregister", u64(self.address))

    def add(self, value, where=stream):
        launch_add(self.device, self.count, value, where)

    def expect(self, values):
        assert list(self.words) == list(values), (self.words[:4], self.words[-4:])


def wait_by_stream():
    call("cuStreamSynchronize", stream)


def wait_by_context():
    call("cuCtxSynchronize")


def wait_by_event():
    call("cuEventRecord", event, stream)
    call("cuEventSynchronize", event)


def ask(name, of):
    while (code := getattr(cuda, name)(of)) == NOT_READY:
        time.sleep(0.0005)
    assert code == 0, code


def wait_by_asking():
    ask("cuStreamQuery", stream)


def wait_by_asking_the_event():
    call("cuEventRecord", event, stream)
    ask("cuEventQuery", event)


def wait_in_host_function():
    done = threading.Event()
    host_function(done.set)
    assert done.wait(60)


WAYS = (wait_by_stream, wait_by_context, wait_by_event, wait_by_asking, wait_by_asking_the_event, wait_in_host_function)

# The pages of a heap, with other objects in them, which a thread writes all the time.
heap = mmap.mmap(-1, 8 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
base = c.addressof(c.c_char.from_buffer(heap))
is_over = False
PLACES = {
    "in one page": (base + 5000, 100), "over the end of one": (base + 2 * PAGE - 40, 30), "with edges": (base + 1016, 5 * PAGE // 4),
    "at a page's begin": (base + PAGE, PAGE // 4 + 7), "to a page's end": (base + 2 * PAGE + 20, (2 * PAGE - 20) // 4),
    "of pages": (base + PAGE, 2 * PAGE // 4), "one word": (base + 12, 1),
}


def neighbours_are_right(before, behind):
    def write():
        turn = 0
        while not is_over:
            turn = (turn + 1) % 256
            for address in (before, behind):
                # Nobody else writes it.
                last = c.c_uint8.from_address(address)
                last.value = turn
                if last.value != turn:
                    failed.append(address)
            time.sleep(0)
    failed = []
    thread = threading.Thread(target=write)
    thread.start()
    return thread, failed


def pointer_attribute(attribute, address, kind=u64):
    return made("cuPointerGetAttribute", attribute, u64(address), kind=kind).value


def is_told(memory):
    """Host memory at both its addresses, also by words inside."""
    for offset in {0, 4 * (memory.count // 2), 4 * memory.count - 1}:
        own, device = memory.address + offset, memory.device + offset
        assert made("cuMemHostGetDevicePointer_v2", u64(own), 0, kind=u64).value == device
        for asked in (own, device):
            assert pointer_attribute(2, asked, c.c_uint) == 1
            assert (pointer_attribute(3, asked), pointer_attribute(4, asked)) == (device, own)


class Told(c.Structure):
    """`cudaPointerAttributes`, with room for what CUDA 13 has behind."""

    _fields_ = [("type", c.c_int), ("device", c.c_int), ("on_device", c.c_void_p), ("on_host", c.c_void_p), ("rest", u64 * 8)]


may_use_host_pointer = made("cuDeviceGetAttribute", 91, 0, kind=c.c_int).value
for name, (address, count) in PLACES.items():
    around = heap[:address - base], heap[address - base + 4 * count:]
    memory = Memory(address, count)
    assert memory.device == address or not may_use_host_pointer
    is_told(memory)
    is_over = False
    thread, failed = neighbours_are_right(address - 1, address + 4 * count)
    for turn, wait in enumerate(WAYS):
        memory.words[:] = [turn + 7 * index for index in range(count)]
        memory.add(5)
        memory.add(1000)
        wait()
        memory.expect(turn + 7 * index + 1005 for index in range(count))
    # A synchronous copy waits for kernels of the legacy stream.
    memory.words[count - 1] = 3
    memory.add(9, None)
    scratch, word = made("cuMemAlloc_v2", size(8 * PAGE), kind=u64), c.c_uint32()
    call("cuMemcpyDtoH_v2", byref(word), scratch, size(4))
    assert memory.words[count - 1] == 12, name
    is_over = True
    thread.join()
    assert not failed, name
    c.memset(address - 1, around[0][-1], 1)
    c.memset(address + 4 * count, around[1][0], 1)
    assert (heap[:address - base], heap[address - base + 4 * count:]) == around, name

    # Copies and fills, in the stream's order with kernels, by both addresses.
    memory.words[:] = [1] * count
    memory.add(1)
    call("cuMemcpyHtoDAsync_v2", scratch, u64(address), size(4 * count), stream)
    launch_add(scratch.value, count, 10)
    memory.add(100)
    wait_by_stream()
    memory.expect([102] * count)
    call("cuMemcpyDtoHAsync_v2", u64(address), scratch, size(4 * count), stream)
    memory.add(1)
    wait_by_stream()
    memory.expect([13] * count)
    call("cuMemsetD32Async", u64(memory.device), c.c_uint(77), size(count), stream)
    memory.add(1)
    call("cuMemcpyAsync", scratch, u64(memory.device), size(4 * count), stream)
    call("cuMemcpyDtoHAsync_v2", u64(address), scratch, size(4 * count), stream)
    wait_by_stream()
    memory.expect([78] * count)
    pageable = (c.c_uint32 * count)()
    call("cuMemcpy", u64(c.addressof(pageable)), u64(address), size(4 * count))
    assert list(pageable) == [78] * count
    pageable[:] = range(count)
    call("cuMemcpy", u64(address), u64(c.addressof(pageable)), size(4 * count))
    memory.add(1)
    away()
    memory.expect(range(1, count + 1))

    # What is unregistered stays as it is, and can be registered anew.
    memory.add(1)
    memory.unregister()
    memory.expect(range(2, count + 2))
    if not may_use_host_pointer:
        call("cuMemHostGetDevicePointer_v2", byref(u64()), u64(address), 0, expected=1)
    memory = Memory(address, count)
    memory.add(3)
    away()
    memory.expect(range(3, count + 3))
    memory.unregister()
print("places passed", flush=True)

# Host functions see what kernels before them wrote, and kernels behind them what they wrote; the program writes other words
# meanwhile.
memory = Memory(*PLACES["with edges"])
last, opened, seen = memory.count - 1, threading.Event(), []
memory.words[:] = [1] * memory.count
memory.add(1)


def double():
    seen.append((memory.words[0], memory.words[last]))
    for index in (0, last):
        memory.words[index] *= 10
    opened.wait(60)


host_function(double)
launch_add(memory.device, 1, 5)
launch_add(memory.device + 4 * last, 1, 6)
memory.words[1] = memory.words[last - 1] = 50
launch_add(scratch.value, 1, 1, None)
opened.set()
wait_by_stream()
assert seen == [(2, 2)] and (memory.words[0], memory.words[last]) == (25, 26), (seen, memory.words[0], memory.words[last])

# Also one that returns just when a command behind it is posted.
def bump():
    memory.words[last] += 1


for turn in range(200):
    memory.words[last] = turn
    host_function(bump)
    memory.add(1)
    wait_by_stream()
    assert memory.words[last] == turn + 2, turn

# Graphs: each launch reads and writes the program's memory as it is then.
call("cuStreamBeginCapture_v2", stream, 2)
memory.add(1)
call("cuMemcpyHtoDAsync_v2", scratch, u64(memory.address), size(4 * memory.count), stream)
host_function(lambda: seen.append((memory.words[0], memory.words[last])))
launch_add(scratch.value, memory.count, 1)
call("cuMemcpyDtoHAsync_v2", u64(memory.address), scratch, size(4 * memory.count), stream)
graph = c.c_void_p()
call("cuStreamEndCapture", stream, byref(graph))
exec_ = made("cuGraphInstantiateWithFlags", graph, u64(0))
for turn in range(3):
    seen.clear()
    memory.words[:] = [100 * turn] * memory.count
    call("cuGraphLaunch", exec_, stream)
    call("cuGraphLaunch", exec_, stream)
    wait_by_stream()
    memory.expect([100 * turn + 4] * memory.count)
    assert seen == [(100 * turn + 1,) * 2, (100 * turn + 3,) * 2], seen
    away()

# The runtime says the same of it.
if hasattr(runtime, "cudaPointerGetAttributes"):
    for asked in (memory.address + 4, memory.device + 4):
        told = Told()
        call("cudaPointerGetAttributes", byref(told), c.c_void_p(asked))
        assert (told.type, told.on_device, told.on_host) == (1, memory.device + 4, memory.address + 4), asked

# What a child of a fork writes is its own, and what it sees is what its parent had; a driver may have another way.
if not may_use_host_pointer:
    before = heap[:]
    child = os.fork()
    if child == 0:
        same = heap[:] == before
        c.memset(base, 9, 8 * PAGE)
        os._exit(not same)
    assert os.waitpid(child, 0)[1] == 0
memory.add(1)
wait_by_stream()
memory.expect([205] * memory.count)
memory.unregister()


# Memory of a stack.
def on_stack():
    libc, attributes, lowest, length = runtime, (u64 * 16)(), c.c_void_p(), size()
    libc.pthread_self.restype = c.c_ulong
    assert libc.pthread_getattr_np(c.c_ulong(libc.pthread_self()), attributes) == 0
    assert libc.pthread_attr_getstack(attributes, byref(lowest), byref(length)) == 0
    call("cuCtxSetCurrent", made("cuDevicePrimaryCtxRetain", 0))
    memory = Memory(lowest.value + 20 * PAGE + 100, 3000)
    memory.add(4)
    wait_by_stream()
    memory.expect(range(4, 3004))
    memory.unregister()
    kept.append("stack")


threading.stack_size(1 << 20)
thread = threading.Thread(target=on_stack)
thread.start()
thread.join()
assert kept[-1] == "stack"

# Who frees such memory without a word goes on.
gone = mmap.mmap(-1, 4 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
view = c.c_char.from_buffer(gone)
memory = Memory(c.addressof(view) + 8, 3 * PAGE // 4)
memory.add(1)
wait_by_stream()
del memory.words, view
runtime.munmap(c.c_void_p(memory.address - 8), size(4 * PAGE))
launch_add(scratch.value, 10, 1)
memory.add(1)
wait_by_stream()
print("registered kernels passed", flush=True)
os._exit(0)
