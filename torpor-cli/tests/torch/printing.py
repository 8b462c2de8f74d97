"""Kernels that print, through the driver's functions and in a graph. Arguments: a name that is printed with every line, then what
to do: `print`, `wait` (print, then wait for a line before each further step) or `assert`."""
import ctypes
import sys
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p

from driver_calls import begin, call, cuda, made

name, action = sys.argv[1:3]
libc = ctypes.CDLL(None)
THREADS, TURNS = 8, 20


def text(string):
    return ", ".join(str(byte) for byte in string.encode() + b"\0")


FORMAT = f"{name} turn %d thread %d\n"
PTX = f"""
.version 7.0
.target sm_70
.address_size 64
.extern .func (.param .b32 result) vprintf(.param .b64 format, .param .b64 list);
.extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 s);
.global .align 1 .b8 format[{len(FORMAT) + 1}] = {{{text(FORMAT)}}};
.global .align 1 .b8 message[{len(name) + 5}] = {{{text(name + " < 3")}}};
.global .align 1 .b8 file[5] = {{{text("a.cu")}}};
.visible .entry speak(.param .u32 turn) {{
  .local .align 8 .b8 list[8];
  .reg .b32 %r<4>; .reg .b64 %rd<4>;
  ld.param.u32 %r1, [turn]; mov.u32 %r2, %tid.x;
  st.local.u32 [list], %r1; st.local.u32 [list+4], %r2;
  mov.u64 %rd1, format; cvta.global.u64 %rd1, %rd1; mov.u64 %rd2, list; cvta.local.u64 %rd2, %rd2;
  {{ .param .b64 a; .param .b64 b; .param .b32 c; st.param.b64 [a], %rd1; st.param.b64 [b], %rd2;
    call.uni (c), vprintf, (a, b); }}
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
""".encode()

begin()
module = made("cuModuleLoadData", PTX)
speak, fail = (made("cuModuleGetFunction", module, kernel) for kernel in (b"speak", b"fail"))
stream = made("cuStreamCreate", 1)
event = made("cuEventCreate", 0)
word = made("cuMemAlloc_v2", c_size_t(4), kind=c_uint64)


def launch(turn, into):
    value = c_int(turn)
    parameters = (c_void_p * 1)(ctypes.addressof(value))
    call("cuLaunchKernel", speak, 1, 1, 1, THREADS, 1, 1, 0, into, parameters, None)


def say(line):
    """In the order of the C library's own stream, which the kernels' text goes to as well."""
    libc.printf(b"%s\n", f"{name} {line}".encode())


def pause():
    if action == "wait":
        libc.fflush(None)
        assert sys.stdin.readline()


def synchronize(turn):
    """Each of the calls that CUDA writes text at."""
    way = turn % 5
    if way == 0:
        call("cuCtxSynchronize")
    elif way == 1:
        call("cuStreamSynchronize", stream)
    elif way == 2:
        call("cuEventRecord", event, stream)
        call("cuEventSynchronize", event)
    elif way == 3:
        call("cuEventRecord", event, stream)
        call("cuStreamWaitEvent", None, event, 0)
        call("cuMemcpyDtoH_v2", byref(c_uint()), word, c_size_t(4))
    else:
        while cuda.cuStreamQuery(stream) == 600:
            pass
        call("cuStreamSynchronize", stream)


if action == "assert":
    call("cuLaunchKernel", fail, 1, 1, 1, 1, 1, 1, 0, stream, None, None)
    call("cuStreamSynchronize", stream, expected=710)
    call("cuStreamSynchronize", stream, expected=710)
    sys.exit()

limit = c_size_t()
call("cuCtxSetLimit", 2, c_size_t(9 << 20))
call("cuCtxGetLimit", byref(limit), 2)
assert limit.value == 9 << 20
call("cuCtxSetLimit", 2, c_size_t(1 << 60), expected=2)
for turn in range(TURNS):
    launch(turn, stream)
    pause()
    synchronize(turn)
    say(f"after {turn}")

call("cuStreamBeginCapture_v2", stream, 0)
launch(TURNS, stream)
graph = c_void_p()
call("cuStreamEndCapture", stream, byref(graph))
executable = made("cuGraphInstantiateWithFlags", graph, c_uint64(0))
call("cuGraphLaunch", executable, stream)
pause()
call("cuStreamSynchronize", stream)
say(f"after {TURNS}")
say("ends")
