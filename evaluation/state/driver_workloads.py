"""Programs of the driver's interface whose state lives on the GPU: each step's answer depends on what all steps before left there.

    driver_workloads.py managed | linked | cooperative | devices | green

A step (the command `step` of ../functions/answering.py) gives the sha256 of the whole state. Their kernels come as PTX, so they run
on the simulated GPU, too.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "functions"), str(HERE.parent / "conformance")]
import answering  # noqa: E402 (first of all that may print)
import ctypes  # noqa: E402
import hashlib  # noqa: E402
import random  # noqa: E402

from driver_api import allocate, call, enter, launch, made  # noqa: E402
from green_workloads import sides_of  # noqa: E402
from linking import HEAD, KERNEL, PTX, SCRAMBLE, Advancing, link  # noqa: E402

u32, u64, size = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t


def seed(chance):
    """A word."""
    return u32(chance.randrange(1 << 32))


def write(address, words):
    call("cuMemcpyHtoD_v2", u64(address), words, size(ctypes.sizeof(words)))


def read(address, bytes):
    """What is on the GPU."""
    content = ctypes.create_string_buffer(bytes)
    call("cuMemcpyDtoH_v2", content, u64(address), size(bytes))
    return content.raw


class Managed:
    """Managed memory, a managed variable and device memory, by a kernel and the host in turns."""

    TEXT = HEAD + b"""
.visible .global .attribute(.managed) .align 4 .u32 launches = 1;
.visible .entry mix(.param .u64 managed, .param .u64 own, .param .u32 seed)
{
    .reg .pred %p;
    .reg .b32 %r<8>;
    .reg .b64 %d<6>;
    ld.param.u64 %d1, [managed];
    ld.param.u64 %d2, [own];
    ld.param.u32 %r1, [seed];
    cvta.to.global.u64 %d1, %d1;
    cvta.to.global.u64 %d2, %d2;
    mov.u32 %r2, %tid.x;
    mul.wide.u32 %d3, %r2, 4;
    add.s64 %d4, %d1, %d3;
    add.s64 %d5, %d2, %d3;
    ld.global.u32 %r3, [%d4];
    ld.global.u32 %r4, [%d5];
    mad.lo.u32 %r5, %r4, 1664525, %r3;
    add.u32 %r5, %r5, %r1;
    st.global.u32 [%d5], %r5;
    xor.b32 %r3, %r3, %r5;
    st.global.u32 [%d4], %r3;
    setp.ne.u32 %p, %r2, 0;
    @%p ret;
    ld.global.u32 %r6, [launches];
    mul.lo.u32 %r6, %r6, 3;
    st.global.u32 [launches], %r6;
    ret;
}
"""
    COUNT = 1024

    def __init__(self):
        enter()
        self.random = random.Random(0)
        module = made("cuModuleLoadData", self.TEXT)
        self.kernel = made("cuModuleGetFunction", module, b"mix")
        everybody, variable, length = 1, u64(), size()
        managed = made("cuMemAllocManaged", size(4 * self.COUNT), everybody, kind=u64).value
        call("cuModuleGetGlobal_v2", ctypes.byref(variable), ctypes.byref(length), module, b"launches")
        # The host has both at the same addresses.
        self.words, self.launches = (u32 * self.COUNT).from_address(managed), u32.from_address(variable.value)
        self.managed, self.own = managed, allocate(4 * self.COUNT)
        write(self.own, (u32 * self.COUNT)(*range(self.COUNT)))
        self.words[:] = [0] * self.COUNT

    def step(self):
        self.words[self.random.randrange(self.COUNT)] ^= self.random.randrange(1 << 32)
        self.launches.value ^= self.random.randrange(1 << 32)
        launch(self.kernel, 1, self.COUNT, u64(self.managed), u64(self.own), seed(self.random))
        call("cuCtxSynchronize")
        return bytes(self.words) + bytes(self.launches) + read(self.own, 4 * self.COUNT)


class Linked:
    """Numbers, and the variables of two texts that the driver has linked."""

    def __init__(self):
        enter()
        self.random, self.program = random.Random(0), Advancing(link((PTX, KERNEL), (PTX, SCRAMBLE)))

    def step(self):
        words = self.program.advance(self.random.randrange(1 << 32))
        return bytes((u32 * len(words))(*words))


class Cooperative:
    """A grid whose blocks wait for each other four times in each launch: they read what their neighbours have just written."""

    TEXT = HEAD + b"""
.visible .entry rounds(.param .u64 from, .param .u64 to, .param .u64 arrived, .param .u32 before, .param .u32 seed)
{
    .reg .pred %p<3>;
    .reg .b32 %r<14>;
    .reg .b64 %d<9>;
    ld.param.u64 %d1, [from];
    ld.param.u64 %d2, [to];
    ld.param.u64 %d3, [arrived];
    ld.param.u32 %r1, [before];
    ld.param.u32 %r2, [seed];
    cvta.to.global.u64 %d1, %d1;
    cvta.to.global.u64 %d2, %d2;
    cvta.to.global.u64 %d3, %d3;
    mov.u32 %r3, %tid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %nctaid.x;
    mov.u32 %r6, %ctaid.x;
    mad.lo.u32 %r7, %r6, %r4, %r3;
    mul.lo.u32 %r8, %r4, %r5;
    add.u32 %r9, %r7, %r4;
    rem.u32 %r9, %r9, %r8;
    mul.wide.u32 %d4, %r7, 4;
    mul.wide.u32 %d5, %r9, 4;
    mov.u32 %r10, 0;
    setp.ne.u32 %p1, %r3, 0;
ROUND:
    add.s64 %d6, %d1, %d4;
    add.s64 %d7, %d1, %d5;
    ld.relaxed.gpu.global.u32 %r11, [%d6];
    ld.relaxed.gpu.global.u32 %r12, [%d7];
    mad.lo.u32 %r11, %r11, 1664525, %r12;
    add.u32 %r11, %r11, %r2;
    add.s64 %d6, %d2, %d4;
    st.relaxed.gpu.global.u32 [%d6], %r11;
    // The grid's barrier: the first threads of all blocks count, behind what their blocks have written.
    add.u32 %r1, %r1, %r5;
    bar.sync 0;
    @%p1 bra TOGETHER;
    fence.acq_rel.gpu;
    atom.global.add.u32 %r13, [%d3], 1;
WAIT:
    ld.acquire.gpu.global.u32 %r13, [%d3];
    setp.lt.u32 %p2, %r13, %r1;
    @%p2 bra WAIT;
TOGETHER:
    bar.sync 0;
    mov.u64 %d8, %d1;
    mov.u64 %d1, %d2;
    mov.u64 %d2, %d8;
    add.u32 %r10, %r10, 1;
    setp.lt.u32 %p2, %r10, 4;
    @%p2 bra ROUND;
    ret;
}
"""
    BLOCKS, THREADS, ROUNDS = 8, 64, 4

    def __init__(self):
        enter()
        self.random, self.arrivals = random.Random(0), 0
        self.kernel = made("cuModuleGetFunction", made("cuModuleLoadData", self.TEXT), b"rounds")
        self.count = self.BLOCKS * self.THREADS
        self.places = [allocate(4 * self.count) for _ in range(2)]
        self.arrived = allocate(4)
        self.numbers = list(range(self.count))
        write(self.places[0], (u32 * self.count)(*self.numbers))
        write(self.arrived, (u32 * 1)(0))

    def step(self):
        number = seed(self.random)
        given = [*map(u64, (*self.places, self.arrived)), u32(self.arrivals), number]
        pointers = (ctypes.c_void_p * len(given))(*map(ctypes.addressof, given))
        call("cuLaunchCooperativeKernel", self.kernel, self.BLOCKS, 1, 1, self.THREADS, 1, 1, 0, None, pointers)
        self.arrivals += self.BLOCKS * self.ROUNDS
        content = read(self.places[0], 4 * self.count)
        for _ in range(self.ROUNDS):
            others = self.numbers[self.THREADS:] + self.numbers[:self.THREADS]
            self.numbers = [(one * 1664525 + other + number.value) % (1 << 32) for one, other in zip(self.numbers, others)]
        if content != bytes((u32 * self.count)(*self.numbers)):
            raise RuntimeError("a block went on before the others")
        return content + read(self.places[1], 4 * self.count)


class Devices:
    """Memory on the first and the last GPU that the program sees: what a kernel makes on one goes to the other, behind an event."""

    COUNT = 1 << 18

    def __init__(self):
        enter()
        self.random, self.sides = random.Random(0), []
        last = made("cuDeviceGetCount", kind=ctypes.c_int).value - 1
        for first, number in ((7, 0), (8, last)):
            context = made("cuDevicePrimaryCtxRetain", made("cuDeviceGet", number, kind=ctypes.c_int))
            call("cuCtxSetCurrent", context)
            image = link((PTX, KERNEL), (PTX, SCRAMBLE))
            kernel = made("cuModuleGetFunction", made("cuModuleLoadData", image), b"advance")
            stream, event, memory = made("cuStreamCreate", 1), made("cuEventCreate", 2), allocate(4 * self.COUNT)
            call("cuMemsetD32_v2", u64(memory), first, size(self.COUNT))
            call("cuCtxSynchronize")
            self.sides.append((context, kernel, stream, event, memory))

    def step(self):
        place = self.random.randrange(self.COUNT - 1024)
        for (context, kernel, stream, event, memory), (other, _, behind, _, elsewhere) in zip(self.sides, self.sides[::-1]):
            call("cuCtxSetCurrent", context)
            launch(kernel, 1, 1024, u64(memory + 4 * place), stream=stream)
            call("cuEventRecord", event, stream)
            call("cuCtxSetCurrent", other)
            call("cuStreamWaitEvent", behind, event, 0)
            call("cuMemcpyPeerAsync", u64(elsewhere + 4 * place), other, u64(memory + 4 * place), context, size(4 * 512), behind)
            call("cuStreamSynchronize", behind)
        content = b""
        for context, _, _, _, memory in self.sides:
            call("cuCtxSetCurrent", context)
            content += read(memory, 4 * self.COUNT)
        return content


class Green:
    """Two green contexts: what a kernel makes in one goes to the other, behind an event, and through the default stream of that."""

    def __init__(self):
        self.random, self.sides = random.Random(0), sides_of(enter())

    def step(self):
        first = self.random.randrange(2)
        one, other = self.sides[first], self.sides[1 - first]
        for _ in range(self.random.randrange(1, 4)):
            one.advance()
        other.follow(one)
        other.advance()
        call("cuStreamSynchronize", other.stream)
        # The context of the other side is current.
        launch(other.kernel, 1, self.random.randrange(1, 1024), other.place)
        call("cuStreamSynchronize", None)
        return b"".join(bytes((u32 * len(words))(*words)) for words in (side.words() for side in self.sides))


WORKLOADS = {"managed": Managed, "linked": Linked, "cooperative": Cooperative, "devices": Devices, "green": Green}

if __name__ == "__main__":
    WORKLOAD = WORKLOADS[sys.argv[1]]()
    answering.answer({"step": lambda: {"sha256": hashlib.sha256(WORKLOAD.step()).hexdigest()}}, workload=sys.argv[1])
