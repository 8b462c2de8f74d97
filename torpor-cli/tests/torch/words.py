"""Streams write words and wait for words: of page-locked memory and of the device's, by the host, by other streams and other processes.

By the driver's functions alone, without PyTorch."""
import ctypes
import faulthandler
import mmap
import os
import subprocess
import sys
import threading
import time

from driver_calls import call, cuda, made

INVALID_VALUE, NOT_READY, NOT_SUPPORTED = 1, 600, 801
NON_BLOCKING, BLOCKING = 1, 0
AT_LEAST, EQUAL, ANY_BIT, MISSING_BIT, FLUSH = 0, 1, 2, 3, 1 << 30
WAIT_32, WRITE_32, WAIT_64, WRITE_64, BARRIER = 1, 2, 4, 5, 6
CAN_V1, CAN_64, CAN_NOR, CAN_FLUSH, PAGEABLE_ACCESS = 92, 122, 123, 98, 88
MIB = 1 << 20


class Operation(ctypes.Structure):
    """`CUstreamBatchMemOpParams`."""
    _fields_ = [("kind", ctypes.c_uint64), ("address", ctypes.c_uint64), ("value", ctypes.c_uint64), ("flags", ctypes.c_uint64),
                ("rest", ctypes.c_uint64 * 2)]


class NodeParams(ctypes.Structure):
    """`CUDA_BATCH_MEM_OP_NODE_PARAMS`."""
    _fields_ = [("context", ctypes.c_void_p), ("count", ctypes.c_uint), ("operations", ctypes.POINTER(Operation)),
                ("flags", ctypes.c_uint)]


def tried(name, *arguments):
    return getattr(cuda, name)(*arguments)


def number(value):
    return ctypes.c_uint64(value)


def attribute(which):
    return made("cuDeviceGetAttribute", which, device, kind=ctypes.c_int).value


def write(stream, address, value, width=32, flags=0):
    value = number(value) if width == 64 else ctypes.c_uint32(value)
    call(f"cuStreamWriteValue{width}_v2", stream, number(address), value, flags)


def wait(stream, address, value, flags=AT_LEAST, width=32):
    value = number(value) if width == 64 else ctypes.c_uint32(value)
    call(f"cuStreamWaitValue{width}_v2", stream, number(address), value, flags)


def batch(*operations):
    return (Operation * len(operations))(*(Operation(kind, address, value, flags) for kind, address, value, flags in operations))


def made_stream(flags=NON_BLOCKING):
    return made("cuStreamCreate", flags)


def allocate(size):
    return made("cuMemAlloc_v2", ctypes.c_size_t(size), kind=ctypes.c_uint64).value


def pinned(size):
    """The address of page-locked memory, all zero."""
    address = made("cuMemHostAlloc", ctypes.c_size_t(size), 0).value
    ctypes.memset(address, 0, size)
    return address


def word(address, width=32):
    """A word of the host's memory."""
    return (ctypes.c_uint64 if width == 64 else ctypes.c_uint32).from_address(address)


def on_device(address, width=32):
    """A word of the device's memory, without a word to any other stream."""
    call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(scratch), number(address), ctypes.c_size_t(width // 8), looking)
    call("cuStreamSynchronize", looking)
    return word(scratch, width).value


def fill(stream, address, value):
    call("cuMemsetD32Async", number(address), ctypes.c_uint32(value), ctypes.c_size_t(1), stream)


def becomes(address, value, width=32):
    """Whether the host sees a word become this, without asking anybody."""
    deadline = time.monotonic() + 20
    while word(address, width).value != value and time.monotonic() < deadline:
        time.sleep(0)
    return word(address, width).value == value


def is_waiting(stream):
    time.sleep(0.01)
    return tried("cuStreamQuery", stream) == NOT_READY


def synchronize(*streams):
    for stream in streams:
        call("cuStreamSynchronize", stream)


def words_are_written():
    stream = made_stream()
    for width, value in ((32, 0xfedcba98), (64, 0xfedcba9876543210)):
        for flags in (0, 1):
            write(stream, host + 8, value + flags, width, flags)
            assert becomes(host + 8, value + flags, width)
            write(stream, data + 8, value + flags, width, flags)
            synchronize(stream)
            assert on_device(data + 8, width) == value + flags
    # A word comes behind what its stream did before.
    for round in range(20):
        fill(stream, data, round)
        call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(host + 64), number(data), ctypes.c_size_t(4), stream)
        write(stream, host, round + 1)
        assert becomes(host, round + 1) and word(host + 64).value == round


def the_host_lets_streams_go_on():
    stream, other, event = made_stream(), made_stream(), made("cuEventCreate", 2)
    high = 1 << 40
    ctypes.memset(host, 0, 4096)
    cases = [(AT_LEAST, 32, 4, 5, 6), (AT_LEAST, 32, 0xfffffff0, 5, 5), (AT_LEAST, 64, high, high + 1, high + 1),
             (EQUAL, 32, 6, 5, 5), (EQUAL, 64, 5, high + 5, high + 5), (ANY_BIT, 32, 1, 6, 2), (ANY_BIT, 64, 1, high, high)]
    if attribute(CAN_NOR):
        cases += [(MISSING_BIT, 32, 0xffffff00, 0xff, 0xfffffe00), (MISSING_BIT, 64, (1 << 64) - 1, 0, 1)]
    for flags, width, before, value, after in cases:
        word(host, 64).value = before
        fill(stream, data, 0)
        wait(stream, host, value, flags | (FLUSH if attribute(CAN_FLUSH) else 0), width)
        fill(stream, data, 1)
        call("cuEventRecord", event, stream)
        # Nobody else waits, but for those that come behind it.
        fill(other, data + 4, value & 0xffff)
        synchronize(other)
        call("cuStreamWaitEvent", other, event, 0)
        write(other, host + 64, 7)
        assert is_waiting(stream) and on_device(data) == 0 and word(host + 64).value == 0, (flags, width)
        assert tried("cuEventQuery", event) == NOT_READY and on_device(data + 4) == value & 0xffff
        word(host, width).value = after
        call("cuEventSynchronize", event)
        assert on_device(data) == 1 and becomes(host + 64, 7)
        word(host + 64).value = 0
    # Which holds already.
    word(host).value = 9
    wait(stream, host, 9)
    synchronize(stream)


def streams_let_streams_go_on():
    streams, rounds = [made_stream(), made_stream()], 10
    ctypes.memset(host, 0, 4096)
    for place in (data + 256, host + 256):
        # Who waits is posted before what he waits for.
        for round in range(rounds):
            for side, stream in enumerate(streams):
                if side or round:
                    wait(stream, place + 8 * (1 - side), round + side, EQUAL)
                fill(stream, data + 512 + 4 * side, 100 + round)
                write(stream, place + 8 * side, round + 1)
        synchronize(*streams)
        assert [on_device(data + 512 + 4 * side) for side in (0, 1)] == [99 + rounds] * 2
    # A fill is a write as any other.
    wait(streams[0], data + 1024, 5, EQUAL)
    write(streams[0], host, 77)
    assert is_waiting(streams[0])
    fill(streams[1], data + 1024, 5)
    assert becomes(host, 77)


def kernels_and_streams_wait_for_each_other():
    ptx = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry answer(.param .u64 words)
{
    .reg .pred %p;
    .reg .b32 %r<2>;
    .reg .b64 %d<2>;
    ld.param.u64 %d1, [words];
    mov.u32 %r1, 1;
    st.volatile.global.u32 [%d1], %r1;
AGAIN:
    ld.volatile.global.u32 %r1, [%d1+4];
    setp.eq.u32 %p, %r1, 0;
    @%p bra AGAIN;
    mov.u32 %r1, 2;
    st.volatile.global.u32 [%d1], %r1;
    ret;
}
"""
    kernel = made("cuModuleGetFunction", made("cuModuleLoadData", ptx), b"answer")
    computing, copying = made_stream(), made_stream()
    ctypes.memset(host, 0, 4096)
    for place in (data + 2048, host + 2048):
        parameter = number(place)
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(parameter))
        wait(copying, place, 1, EQUAL)
        write(copying, place + 4, 1)
        wait(copying, place, 2, EQUAL)
        write(copying, host, 3)
        call("cuLaunchKernel", kernel, 1, 1, 1, 1, 1, 1, 0, computing, pointers, None)
        assert becomes(host, 3)
        synchronize(computing, copying)
        word(host).value = 0


def batches_are_done_in_order():
    stream = made_stream()
    ctypes.memset(host, 0, 4096)
    operations = batch((WRITE_32, host + 8, 1, 0), (WAIT_32, host, 5, EQUAL), (BARRIER, 0, 0, 0), (WAIT_64, host + 16, 6, AT_LEAST),
                       (WRITE_64, host + 8, 2 | 1 << 40, 0), (WRITE_32, data, 8, 1))
    call("cuStreamBatchMemOp_v2", stream, len(operations), operations, 0)
    ctypes.memset(operations, 0, ctypes.sizeof(operations))
    assert becomes(host + 8, 1) and is_waiting(stream)
    word(host).value = 5
    assert is_waiting(stream) and word(host + 8, 64).value == 1
    word(host + 16).value = 6
    synchronize(stream)
    assert word(host + 8, 64).value == 2 | 1 << 40 and on_device(data) == 8


def registered_memory_has_words():
    pages = mmap.mmap(-1, 16384, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    call("cuMemHostRegister_v2", ctypes.c_void_p(address), ctypes.c_size_t(16384), 2)
    seen = made("cuMemHostGetDevicePointer_v2", ctypes.c_void_p(address), 0, kind=ctypes.c_uint64).value
    stream = made_stream()
    wait(stream, seen + 4096, 3)
    write(stream, seen + 8192, 4)
    assert is_waiting(stream) and word(address + 8192).value == 0
    word(address + 4096).value = 3
    assert becomes(address + 8192, 4)
    synchronize(stream)
    call("cuMemHostUnregister", ctypes.c_void_p(address))


def streams_that_wait_for_each_other_wait_together():
    blocking, other, free = made_stream(BLOCKING), made_stream(BLOCKING), made_stream()
    word(host).value = 0
    wait(blocking, host, 1)
    fill(None, data, 2)
    fill(other, data + 4, 3)
    write(free, host + 8, 4)
    assert becomes(host + 8, 4)
    assert is_waiting(blocking) and is_waiting(None) and is_waiting(other)
    threading.Timer(0.02, lambda: setattr(word(host), "value", 1)).start()
    call("cuCtxSynchronize")
    assert (on_device(data), on_device(data + 4)) == (2, 3)


def what_is_no_word_is_refused():
    stream = made_stream()
    ordinary = ctypes.create_string_buffer(64)
    outside = (ctypes.addressof(ordinary) + 15) // 16 * 16
    for name, value in (("Wait", ctypes.c_uint32(0)), ("Write", ctypes.c_uint32(0))):
        for address in (host + 2, data + 1, 0, *([] if attribute(PAGEABLE_ACCESS) else [outside])):
            code = tried(f"cuStream{name}Value32_v2", stream, number(address), value, 0)
            assert code == INVALID_VALUE, (name, hex(address), code)
        assert tried(f"cuStream{name}Value64_v2", stream, number(host + 4), number(0), 0) == INVALID_VALUE
        assert tried(f"cuStream{name}Value32_v2", stream, number(host), value, 64) == INVALID_VALUE
    operations = batch(*[(WRITE_32, host + 8, 5, 0)] * 257)
    assert tried("cuStreamBatchMemOp_v2", stream, 257, operations, 0) == INVALID_VALUE
    assert tried("cuStreamBatchMemOp_v2", stream, 1, None, 0) == INVALID_VALUE
    assert tried("cuStreamBatchMemOp_v2", stream, 1, operations, 1) == INVALID_VALUE
    assert tried("cuStreamBatchMemOp_v2", stream, 2, batch((WRITE_32, host + 8, 5, 0), (77, host + 8, 5, 0)), 0) == INVALID_VALUE


def the_functions_before_cuda_11_7():
    if not attribute(CAN_V1):
        return
    stream = made_stream()
    word(host).value = 0
    call("cuStreamWriteValue32", stream, number(host), ctypes.c_uint32(3), 0)
    call("cuStreamWaitValue32", stream, number(host), ctypes.c_uint32(3), EQUAL)
    call("cuStreamWriteValue64", stream, number(host + 8), number(4), 0)
    call("cuStreamWaitValue64", stream, number(host + 8), number(4), EQUAL)
    call("cuStreamBatchMemOp", stream, 1, batch((WRITE_32, host + 16, 5, 0)), 0)
    for name in ("cuStreamWriteValue32", "cuStreamWriteValue32_v2"):
        call(f"{name}_ptsz", None, number(host + 24), ctypes.c_uint32(6), 0)
    synchronize(stream)
    assert [word(host + 8 * at).value for at in range(3)] == [3, 4, 5] and becomes(host + 24, 6)


def graphs_write_words_and_wait():
    stream = made_stream()
    ctypes.memset(host, 0, 4096)
    call("cuStreamBeginCapture_v2", stream, 2)
    write(stream, host + 8, 1)
    wait(stream, host, 1, EQUAL)
    fill(stream, data, 9)
    write(stream, host + 8, 2)
    graph = ctypes.c_void_p()
    call("cuStreamEndCapture", stream, ctypes.byref(graph))
    assert word(host + 8).value == 0
    exec_graph = made("cuGraphInstantiateWithFlags", graph, ctypes.c_uint64(0))
    for _ in range(3):
        fill(stream, data, 0)
        call("cuGraphLaunch", exec_graph, stream)
        assert becomes(host + 8, 1) and is_waiting(stream) and on_device(data) == 0
        word(host).value = 1
        synchronize(stream)
        assert word(host + 8).value == 2 and on_device(data) == 9
        ctypes.memset(host, 0, 4096)
    # By hand: two nodes, one behind the other.
    graph = made("cuGraphCreate", 0)
    context = made("cuCtxGetCurrent")

    def params(*operations):
        kept.append(batch(*operations))
        return NodeParams(context, len(operations), kept[-1], 0)
    first = made("cuGraphAddBatchMemOpNode", graph, None, ctypes.c_size_t(0),
                 ctypes.byref(params((WRITE_32, host + 8, 5, 0), (WAIT_32, host, 1, AT_LEAST))))
    behind = (ctypes.c_void_p * 1)(first)
    second = made("cuGraphAddBatchMemOpNode", graph, behind, ctypes.c_size_t(1), ctypes.byref(params((WRITE_64, host + 16, 6, 0))))
    kind = ctypes.c_int()
    call("cuGraphNodeGetType", first, ctypes.byref(kind))
    told = NodeParams()
    call("cuGraphBatchMemOpNodeGetParams", first, ctypes.byref(told))
    assert (kind.value, told.count, told.flags) == (12, 2, 0)
    assert [(it.kind & 0xffffffff, it.address, it.value & 0xffffffff) for it in told.operations[:2]] == [
        (WRITE_32, host + 8, 5), (WAIT_32, host, 1)]
    exec_graph = made("cuGraphInstantiateWithFlags", graph, ctypes.c_uint64(0))
    call("cuGraphLaunch", exec_graph, stream)
    assert becomes(host + 8, 5) and is_waiting(stream) and word(host + 16).value == 0
    word(host).value = 1
    synchronize(stream)
    assert word(host + 16).value == 6
    call("cuGraphExecBatchMemOpNodeSetParams", exec_graph, second, ctypes.byref(params((WRITE_32, host + 16, 7, 0))))
    call("cuGraphLaunch", exec_graph, stream)
    synchronize(stream)
    assert word(host + 16).value == 7
    call("cuGraphBatchMemOpNodeSetParams", second, ctypes.byref(params((WRITE_32, host + 16, 8, 0))))
    call("cuGraphLaunch", made("cuGraphInstantiateWithFlags", graph, ctypes.c_uint64(0)), stream)
    synchronize(stream)
    assert word(host + 16).value == 8


def child(*arguments, **settings):
    return subprocess.Popen([sys.executable, os.path.abspath(__file__), *map(str, arguments)], **settings)


def another_process_lets_a_stream_go_on():
    shared, stream = allocate(2 * MIB), made_stream()
    handle = ctypes.create_string_buffer(64)
    call("cuIpcGetMemHandle", handle, number(shared))
    wait(stream, shared + 64, 21, EQUAL)
    fill(stream, data, 22)
    write(stream, shared + 72, 23)
    process = child("partner", handle.raw.hex())
    assert process.wait(30) == 0
    synchronize(stream)
    assert on_device(data) == 22


def partner(handle):
    opened = ctypes.create_string_buffer(bytes.fromhex(handle), 64)

    class Handle(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_char * 64)]
    shared = made("cuIpcOpenMemHandle_v2", Handle.from_buffer(opened), 1, kind=ctypes.c_uint64).value
    stream = made_stream()
    write(stream, shared + 64, 21)
    wait(stream, shared + 72, 23, EQUAL)
    synchronize(stream)


def who_waits_keeps_nobody_from_the_gpu(size):
    """Two processes whose memory may have no room together: each waits while the other one works."""
    memory, stream = allocate(size), made_stream()
    call("cuMemsetD32_v2", number(memory), 4711, ctypes.c_size_t(size // 4))
    call("cuMemsetD32_v2", number(data), 0, ctypes.c_size_t(16))
    call("cuCtxSynchronize")
    word(host).value = 0
    wait(stream, data, 1, EQUAL)
    wait(stream, host, 1, EQUAL)
    fill(stream, memory, 4712)
    for how in ("works", "dies"):
        assert child(how, size).wait(60) == 0, how
    assert is_waiting(stream)
    word(host).value = 1
    assert is_waiting(stream), "the other word is not there"
    write(looking, data, 1)
    synchronize(stream)
    assert [on_device(memory), on_device(memory + 4), on_device(memory + size - 4)] == [4712, 4711, 4711]


def works(size):
    memory = allocate(int(size))
    for value in range(3):
        call("cuMemsetD32_v2", number(memory), value, ctypes.c_size_t(int(size) // 4))
        call("cuCtxSynchronize")
        assert on_device(memory + int(size) - 4) == value


def dies(size):
    """In the middle of two waits that nobody will end."""
    works(size)
    for place in (host, data + 64):
        stream = made_stream()
        wait(stream, place, 1, EQUAL)
        fill(stream, data, 1)
    os._exit(0)


faulthandler.dump_traceback_later(100, exit=True)
kept = []
call("cuInit", 0)
device = made("cuDeviceGet", 0, kind=ctypes.c_int)
call("cuCtxSetCurrent", made("cuDevicePrimaryCtxRetain", device))
assert attribute(CAN_64), "64-bit words"
host, scratch, data, looking = pinned(4096), pinned(4096), allocate(4096), made_stream()
call("cuMemsetD32_v2", number(data), 0, ctypes.c_size_t(1024))
call("cuCtxSynchronize")
if len(sys.argv) > 1:
    globals()[sys.argv[1]](*sys.argv[2:])
else:
    words_are_written()
    the_host_lets_streams_go_on()
    streams_let_streams_go_on()
    kernels_and_streams_wait_for_each_other()
    batches_are_done_in_order()
    registered_memory_has_words()
    streams_that_wait_for_each_other_wait_together()
    what_is_no_word_is_refused()
    the_functions_before_cuda_11_7()
    graphs_write_words_and_wait()
    another_process_lets_a_stream_go_on()
    who_waits_keeps_nobody_from_the_gpu(int(os.environ.get("WORDS_MIB", 64)) * MIB)
    print("words passed")
