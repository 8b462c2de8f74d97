"""Memory and events of two processes (`cuIpc…`, and an object that is exported by a descriptor): each goes on with what the
other has left.

    processes.py

A step (the command `step` of ../functions/answering.py) gives the sha256 of all that they have together. In each, both launch
kernels, behind an event of the other process, and both must then see the same bytes. Kernels come as PTX: it runs on the simulated
GPU, too.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "functions")]
import ctypes  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import subprocess  # noqa: E402

from driver_api import allocate, call, enter, launch, made  # noqa: E402
from linking import HEAD  # noqa: E402

u32, u64, size = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t
BYTES, THREADS = 4 << 20, 1024

# Of the elements of `from`, those of `to`: both are memory that the processes have together.
TEXT = HEAD + b"""
.visible .entry mix(.param .u64 from, .param .u64 to, .param .u32 seed)
{
    .reg .b32 %r<5>;
    .reg .b64 %d<6>;
    ld.param.u64 %d1, [from];
    ld.param.u64 %d2, [to];
    ld.param.u32 %r1, [seed];
    cvta.to.global.u64 %d1, %d1;
    cvta.to.global.u64 %d2, %d2;
    mov.u32 %r2, %tid.x;
    mul.wide.u32 %d3, %r2, 4;
    add.s64 %d4, %d1, %d3;
    add.s64 %d5, %d2, %d3;
    ld.global.u32 %r3, [%d4];
    ld.global.u32 %r4, [%d5];
    mad.lo.u32 %r3, %r3, 1664525, %r4;
    add.u32 %r3, %r3, %r1;
    st.global.u32 [%d5], %r3;
    ret;
}
"""


class Handle(ctypes.Structure):
    """`CUipcMemHandle` and `CUipcEventHandle`: passed by value."""

    _fields_ = [("bytes", ctypes.c_ubyte * 64)]


class Properties(ctypes.Structure):
    """`CUmemAllocationProp`: pinned memory of device 0, to be exported by descriptors."""

    _fields_ = [(name, ctypes.c_int) for name in ("type", "handles", "place", "device")] + [
        ("security", ctypes.c_void_p), ("flags", ctypes.c_ubyte * 8)]


def map_object(thing):
    """The address of an object's memory, for this process."""
    address = made("cuMemAddressReserve", size(BYTES), size(0), u64(0), u64(0), kind=u64)
    call("cuMemMap", address, size(BYTES), size(0), thing, u64(0))
    # CUmemAccessDesc: device 0 reads and writes.
    call("cuMemSetAccess", address, size(BYTES), (ctypes.c_int * 3)(1, 0, 3), size(1))
    return address.value


def opened(function, handle, *flags, kind=ctypes.c_void_p):
    """What another process has exported."""
    return made(function, Handle((ctypes.c_ubyte * 64)(*bytes.fromhex(handle))), *flags, kind=kind)


def handle_of(function, thing):
    return bytes(made(function, thing, kind=Handle).bytes).hex()


class Process:
    """What each of the two does."""

    def __init__(self):
        enter()
        self.kernel = made("cuModuleGetFunction", made("cuModuleLoadData", TEXT), b"mix")
        self.stream = made("cuStreamCreate", 1)
        interprocess = 6  # ... which keeps no time
        self.event = made("cuEventCreate", interprocess)
        self.own = {"event": handle_of("cuIpcGetEventHandle", self.event)}

    def meet(self, theirs, memory, thing):
        """Has the other process's event, and the memory of both."""
        self.theirs, self.memory, self.thing = opened("cuIpcOpenEventHandle", theirs), memory, thing

    def work(self, place, seed):
        """Behind what the other process did: this one's kernels, which nobody waits for."""
        call("cuStreamWaitEvent", self.stream, self.theirs, 0)
        for ends in ((self.memory, self.thing), (self.thing, self.memory)):
            launch(self.kernel, 1, THREADS, *(u64(end + place) for end in ends), u32(seed), stream=self.stream)
        call("cuEventRecord", self.event, self.stream)

    def seen(self):
        """The hash of all memory of both, as this process sees it, behind what the other process did."""
        call("cuStreamWaitEvent", self.stream, self.theirs, 0)
        call("cuStreamSynchronize", self.stream)
        total, content = hashlib.sha256(), ctypes.create_string_buffer(BYTES)
        for address in (self.memory, self.thing):
            call("cuMemcpyDtoH_v2", content, u64(address), size(BYTES))
            total.update(content.raw)
        return total.hexdigest()


class First(Process):
    """It allocates, exports, and starts the other one."""

    def __init__(self):
        super().__init__()
        self.random = random.Random(0)
        memory = allocate(BYTES)
        pinned, descriptors, device = 1, 1, 1
        thing = made("cuMemCreate", size(BYTES), ctypes.byref(Properties(pinned, descriptors, device, 0)), u64(0), kind=u64)
        descriptor = made("cuMemExportToShareableHandle", thing, descriptors, u64(0), kind=ctypes.c_int).value
        self.other = subprocess.Popen([sys.executable, __file__, "second", str(descriptor)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True, pass_fds=[descriptor])
        here = map_object(thing)
        for address, value in ((memory, 1), (here, 2)):
            call("cuMemsetD32_v2", u64(address), value, size(BYTES // 4))
        call("cuCtxSynchronize")
        theirs = self.ask("meet", memory=handle_of("cuIpcGetMemHandle", u64(memory)), **self.own)
        self.meet(theirs["event"], memory, here)

    def ask(self, command, **fields):
        print(json.dumps({"command": command, **fields}), file=self.other.stdin, flush=True)
        line = self.other.stdout.readline()
        if not line:
            raise RuntimeError(f"the other process has ended: {self.other.wait()}")
        return json.loads(line)

    def step(self):
        for worker in (self.work, lambda place, seed: self.ask("work", place=place, seed=seed)):
            worker(4 * self.random.randrange(BYTES // 4 - THREADS), self.random.randrange(1 << 32))
        here, there = self.seen(), self.ask("seen")["sha256"]
        if here != there:
            raise RuntimeError(f"this process sees {here}, the other one {there}")
        return here


def second(descriptor):
    """Obeys the first process, line by line."""
    process, lines = Process(), iter(sys.stdin)
    greeting = json.loads(next(lines))
    lazy_peer_access = 1
    memory = opened("cuIpcOpenMemHandle_v2", greeting["memory"], lazy_peer_access, kind=u64).value
    thing = made("cuMemImportFromShareableHandle", ctypes.c_void_p(descriptor), 1, kind=u64)
    process.meet(greeting["event"], memory, map_object(thing))
    answer(process.own)
    for line in lines:
        told = json.loads(line)
        if told.pop("command") == "work":
            process.work(**told)
            answer({})
        else:
            answer({"sha256": process.seen()})


def answer(fields):
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["second"]:
        second(int(sys.argv[2]))
    else:
        # What the driver prints is no answer.
        import answering
        first = First()
        answering.answer({"step": lambda: {"sha256": first.step()}}, workload="processes")
