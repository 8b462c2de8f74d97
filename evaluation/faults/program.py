"""A function for run: it keeps state on its GPU, does what its standard input says, and says what came of it, with its time.

    program.py NAME MIB [graph] [mapped]

ready PID; then, for each line:
  answer          one request: adds to every word of the state, and compares all of it: answer TIME ok|WRONG, or error TIME CODE
  begin           posts a request whose first kernel lasts until `end` says so: begun TIME. It waits for a word on the GPU, or, if the
                  program was told `mapped`, for one in page-locked memory
  end             ends that, waits for it: answer or error, as above
  prepare         what a stack overflow needs: prepared TIME
  fault KIND      illegal, misaligned, assert, endless or stack-overflow: fault TIME CODE once every later call fails;
                  out-of-memory: the same, once it has been refused more memory and given back what it got
  grow MIB        has so much more memory, whose contents nobody else has: grown TIME
  copy            copying TIME; from then on it copies to the GPU without an end
Times are of the machine's monotonic clock; that of an answer is when all of its bytes have arrived, before they are compared. It is plain
CUDA driver API, so that it runs on a simulated GPU too.
"""
import array
import ctypes
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from driver_api import Failed, allocate, call, enter, launch, made  # noqa: E402

STEP = 3
THREADS = 256
NOWHERE = 0x1000
MESSAGE, FILE = b"index < size\0", b"faults.cu\0"

PTX = f"""
.version 7.0
.target sm_70
.address_size 64
.extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 s);
.global .align 1 .b8 message[{len(MESSAGE)}] = {{{", ".join(map(str, MESSAGE))}}};
.global .align 1 .b8 file[{len(FILE)}] = {{{", ".join(map(str, FILE))}}};

.visible .entry add(.param .u64 data, .param .u32 step) {{
  .reg .b32 %r<6>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [data]; ld.param.u32 %r1, [step]; cvta.to.global.u64 %rd1, %rd1;
  mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.u32 %r2, %r2, %r3, %r4;
  mul.wide.u32 %rd2, %r2, 4; add.u64 %rd3, %rd1, %rd2;
  ld.global.u32 %r5, [%rd3]; add.u32 %r5, %r5, %r1; st.global.u32 [%rd3], %r5;
  ret;
}}
.visible .entry wait(.param .u64 flag, .param .u64 most) {{
  .reg .pred %p; .reg .b32 %r<2>; .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [flag]; ld.param.u64 %rd2, [most]; mov.u64 %rd3, %globaltimer;
AGAIN:
  mov.u64 %rd4, %globaltimer; sub.u64 %rd4, %rd4, %rd3; setp.gt.u64 %p, %rd4, %rd2; @%p bra DONE;
  ld.volatile.global.u32 %r1, [%rd1]; setp.eq.u32 %p, %r1, 0; @%p bra AGAIN;
DONE:
  ret;
}}
.visible .entry poke(.param .u64 address) {{
  .reg .b32 %r<2>; .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [address]; mov.u32 %r1, 1; st.global.u32 [%rd1], %r1;
  ret;
}}
.visible .entry fail() {{
  .reg .b32 %r<2>; .reg .b64 %rd<4>;
  mov.u64 %rd1, message; cvta.global.u64 %rd1, %rd1; mov.u64 %rd2, file; cvta.global.u64 %rd2, %rd2; mov.u32 %r1, 7;
  mov.u64 %rd3, 1;
  {{ .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;
    st.param.b64 [a], %rd1; st.param.b64 [b], %rd2; st.param.b32 [c], %r1; st.param.b64 [d], %rd2; st.param.b64 [e], %rd3;
    call.uni __assertfail, (a, b, c, d, e); }}
  ret;
}}
""".encode() + b"\0"

# How long a kernel waits for its flag, in nanoseconds, unless it is to be endless: the copy that sets the flag may stand behind other
# functions' kernels, as the GPU has 32 queues for all streams.
MOST_NS = 2_000_000_000
ENDLESS = (1 << 64) - 1


def say(*words):
    print(*words, flush=True)


# A function that calls itself until its stack is at its end, or only as often as `steps`.
STACK_PTX = """
.version 7.0
.target sm_70
.address_size 64
.func (.param .b32 sum) descend(.param .b32 depth, .param .b32 steps) {
  .local .align 4 .b8 room[128];
  .reg .pred %p; .reg .b32 %r<5>; .reg .b64 %rd<2>;
  ld.param.b32 %r1, [depth]; ld.param.b32 %r4, [steps];
  mov.u64 %rd1, room; cvta.local.u64 %rd1, %rd1; st.volatile.u32 [%rd1], %r1; add.u32 %r2, %r1, 1;
  mov.u32 %r3, 0; setp.ge.u32 %p, %r1, %r4; @%p bra DONE;
  { .param .b32 next; .param .b32 left; .param .b32 below; st.param.b32 [next], %r2; st.param.b32 [left], %r4;
    call.uni (below), descend, (next, left); ld.param.b32 %r3, [below]; }
DONE:
  ld.volatile.u32 %r1, [%rd1]; add.u32 %r3, %r3, %r1; st.param.b32 [sum], %r3;
  ret;
}
.visible .entry overflow() {
  .reg .b32 %r<3>;
  { .param .b32 first; .param .b32 steps; .param .b32 all; st.param.b32 [first], 0; st.param.b32 [steps], 4294967295;
    call.uni (all), descend, (first, steps); ld.param.b32 %r2, [all]; }
  ret;
}
.visible .entry shallow() {
  .reg .b32 %r<3>;
  { .param .b32 first; .param .b32 steps; .param .b32 all; st.param.b32 [first], 0; st.param.b32 [steps], 0;
    call.uni (all), descend, (first, steps); ld.param.b32 %r2, [all]; }
  ret;
}
""".encode() + b"\0"

# The simulated GPU has no stack: it is told to make that fault of the kernel with this name.
SIMULATED_STACK_PTX = b".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry overflow() { ret; }\n.visible .entry shallow() { ret; }\0"
INVALID_PTX = 218

# What it asks for until it is refused.
PIECE_BYTES = 16 << 20


class Function:
    """What the program has on its GPU."""

    def __init__(self, name, mib, words):
        enter()
        module = made("cuModuleLoadData", PTX)
        self.kernels = {kernel: made("cuModuleGetFunction", module, kernel.encode())
                        for kernel in ("add", "wait", "poke", "fail")}
        self.stream = made("cuStreamCreate", 1)
        self.words = mib << 18
        self.data = ctypes.c_uint64(allocate(self.words * 4))
        # Every function's state is its own: none has another one's chunks.
        self.first = sum(name.encode()) * 7919
        call("cuMemsetD32_v2", self.data, ctypes.c_uint(self.first), ctypes.c_size_t(self.words))
        # Its streams wait for nobody.
        call("cuCtxSynchronize")
        self.mapped = "mapped" in words
        if self.mapped:
            self.flag = made("cuMemHostAlloc", ctypes.c_size_t(4096), ctypes.c_uint(0)).value
        else:
            self.flag = allocate(4096)
            self.other_stream = made("cuStreamCreate", 1)
        self.answers, self.graph = 0, None
        # Its pages are there before anybody waits for an answer.
        self.found = (ctypes.c_uint * self.words)()
        ctypes.memset(self.found, 0xFF, ctypes.sizeof(self.found))
        if "graph" in words:
            call("cuStreamBeginCapture_v2", self.stream, 2)
            self.add()
            graph = ctypes.c_void_p()
            call("cuStreamEndCapture", self.stream, ctypes.byref(graph))
            self.graph = made("cuGraphInstantiateWithFlags", graph, ctypes.c_ulonglong(0))

    def launch(self, kernel, blocks, threads, *parameters):
        launch(self.kernels[kernel], blocks, threads, *parameters, stream=self.stream)

    def add(self):
        self.launch("add", self.words // THREADS, THREADS, self.data, ctypes.c_uint(STEP))

    def answer(self):
        """When it was there, and whether the state is what so many requests make of it, bit by bit."""
        if self.graph:
            call("cuGraphLaunch", self.graph, self.stream)
        else:
            self.add()
        self.answers += 1
        return self.fetch()

    def fetch(self):
        call("cuMemcpyDtoHAsync_v2", self.found, self.data, ctypes.c_size_t(self.words * 4), self.stream)
        call("cuStreamSynchronize", self.stream)
        arrived = time.monotonic()
        expected = (self.first + STEP * self.answers) & 0xFFFFFFFF
        return arrived, bytes(self.found) == array.array("I", [expected]).tobytes() * self.words

    def say_in_flag(self, value):
        if self.mapped:
            ctypes.c_uint.from_address(self.flag).value = value
        else:
            word = ctypes.c_uint(value)
            call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(self.flag), ctypes.byref(word), ctypes.c_size_t(4), self.other_stream)

    def begin(self, most=MOST_NS):
        self.say_in_flag(0)
        if not self.mapped:
            call("cuStreamSynchronize", self.other_stream)
        self.launch("wait", 1, 1, ctypes.c_uint64(self.flag), ctypes.c_uint64(most))
        self.add()
        self.answers += 1

    def end(self):
        self.say_in_flag(1)
        return self.fetch()

    def fault(self, kind):
        """Does it, and returns the code that every later call gives."""
        try:
            if kind == "assert":
                self.launch("fail", 1, 1)
            elif kind == "endless":
                self.begin(ENDLESS)
            elif kind == "stack-overflow":
                self.launch("overflow", 1, 1)
            elif kind == "out-of-memory":
                self.ask_for_more_and_more()
            else:
                address = NOWHERE if kind == "illegal" else self.data.value + 1
                self.launch("poke", 1, 1, ctypes.c_uint64(address))
            call("cuStreamSynchronize", self.stream)
        except Failed as failed:
            return failed.code
        return 0

    def prepare_overflow(self):
        """Has a stack on the GPU, for whose memory the driver may wait until no kernel runs."""
        for text in (STACK_PTX, SIMULATED_STACK_PTX):
            try:
                module = made("cuModuleLoadData", text)
                self.kernels |= {kernel: made("cuModuleGetFunction", module, kernel.encode()) for kernel in ("overflow", "shallow")}
                self.launch("shallow", 1, 1)
                return call("cuStreamSynchronize", self.stream)
            except Failed as failed:
                if failed.code != INVALID_PTX or text is SIMULATED_STACK_PTX:
                    raise

    def ask_for_more_and_more(self):
        pieces = []
        try:
            while True:
                pieces.append(allocate(PIECE_BYTES))
                call("cuMemsetD32_v2", ctypes.c_uint64(pieces[-1]), ctypes.c_uint(len(pieces)), ctypes.c_size_t(PIECE_BYTES // 4))
        finally:
            for piece in pieces:
                call("cuMemFree_v2", ctypes.c_uint64(piece))

    def grow(self, mib):
        """Each MiB is as random as the next."""
        address = allocate(mib << 20)
        for at in range(mib):
            call("cuMemcpyHtoD_v2", ctypes.c_uint64(address + (at << 20)), os.urandom(1 << 20), ctypes.c_size_t(1 << 20))

    def copy(self):
        contents = bytes(self.words * 4)
        while True:
            call("cuMemcpyHtoDAsync_v2", self.data, contents, ctypes.c_size_t(len(contents)), self.stream)


def main():
    function = Function(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
    say("ready", os.getpid())
    for line in sys.stdin:
        verb, *words = line.split()
        try:
            if verb == "fault":
                code = function.fault(*words)
                say("fault", time.monotonic(), code)
            elif verb == "prepare":
                function.prepare_overflow()
                say("prepared", time.monotonic())
            elif verb == "grow":
                function.grow(int(words[0]))
                say("grown", time.monotonic())
            elif verb == "copy":
                say("copying", time.monotonic())
                function.copy()
            elif verb == "begin":
                function.begin()
                say("begun", time.monotonic())
            else:
                arrived, is_right = function.answer() if verb == "answer" else function.end()
                say("answer", arrived, "ok" if is_right else "WRONG")
        except Failed as failed:
            say("error", time.monotonic(), failed.code)


if __name__ == "__main__":
    main()
