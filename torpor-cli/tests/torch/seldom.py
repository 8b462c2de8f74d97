"""Functions that few programs call and that need no GPU: what is remembered, what there is nothing of, launches as before CUDA 4, and the
log of what was refused. With "conformance" without errors, of which a driver may think otherwise."""
import ctypes as c
import os
import struct
import sys
import tempfile

from driver_calls import begin, call, made

INVALID, HANDLE, NO_AFFINITY, NOT_PERMITTED, NOT_SUPPORTED = 1, 400, 224, 800, 801
size, u32, u64 = c.c_size_t, c.c_uint32, c.c_uint64
is_open = sys.argv[1:] == ["conformance"]


def wrong(*arguments, code):
    if not is_open:
        call(*arguments, expected=code)


begin()

# Parts of a GPU, which MPS alone gives out, and banks of shared memory, of which no GPU has a choice.
supported, number = c.c_int(7), u32(7)
call("cuDeviceGetExecAffinitySupport", c.byref(supported), 0, 0)
assert supported.value in (0, 1)
wrong("cuDeviceGetExecAffinitySupport", c.byref(supported), 1, 0, code=INVALID)
wrong("cuDeviceGetExecAffinitySupport", c.byref(supported), 0, 9, code=101)
call("cuCtxSetSharedMemConfig", 2)
call("cuCtxGetSharedMemConfig", c.byref(number))
assert number.value == 1, "banks of four bytes"
wrong("cuCtxSetSharedMemConfig", 3, code=INVALID)

# Properties as numbers in a row: they are the first attributes.
properties, value = (c.c_int * 14)(), c.c_int()
call("cuDeviceGetProperties", properties, 0)
for at in range(14):
    call("cuDeviceGetAttribute", c.byref(value), at + 1, 0)
    assert properties[at] == value.value, at
assert properties[0] == 1024 and properties[9] == 32

# Arrays of one plane, which are not sparse and have their memory.
descriptor = struct.pack("=3QIIII", 8, 8, 0, 3, 1, 0, 0)
array, levels = made("cuArray3DCreate_v2", descriptor), made("cuMipmappedArrayCreate", descriptor, u32(2))
plane, facts = c.c_void_p(), (c.c_uint64 * 16)()
wrong("cuArrayGetPlane", c.byref(plane), array, 0, code=INVALID)
for prefix in ("cu", "cuda"):
    wrong(f"{prefix}ArrayGetSparseProperties", facts, array, code=INVALID)
    wrong(f"{prefix}MipmappedArrayGetSparseProperties", facts, levels, code=INVALID)
    wrong(f"{prefix}ArrayGetMemoryRequirements", facts, array, 0, code=INVALID)
    wrong(f"{prefix}MipmappedArrayGetMemoryRequirements", facts, levels, 0, code=INVALID)
wrong("cudaArrayGetPlane", c.byref(plane), array, 0, code=INVALID)

# Core dumps: what is set is told again, for a context or for all of them.
ON_EXCEPTION, TRIGGER_HOST, FILE, PIPE, FLAGS = 1, 2, 5, 6, 7


def setting(which, kind=c.c_bool, of=""):
    place, room = kind(), size(c.sizeof(kind))
    call(f"cuCoredumpGetAttribute{of}", which, c.byref(place), c.byref(room))
    return place.value


def wanted(which, value, of="", expected=0):
    call(f"cuCoredumpSetAttribute{of}", which, c.byref(value), c.byref(size(c.sizeof(value))), expected=expected)


Name = c.c_char * 1024
assert setting(TRIGGER_HOST) and not setting(ON_EXCEPTION) and not setting(ON_EXCEPTION, of="Global")
room = size(0)
call("cuCoredumpGetAttribute", FLAGS, None, c.byref(room))
assert room.value == 4
wanted(FLAGS, u32(3))
assert setting(FLAGS, u32) == 3 and setting(FLAGS, u32, "Global") == 0
wanted(FILE, c.create_string_buffer(b"/tmp/core.of.a.gpu"), "Global")
assert setting(FILE, Name, "Global") == setting(FILE, Name) == b"/tmp/core.of.a.gpu"
wrong("cuCoredumpGetAttribute", 99, c.byref(number), c.byref(room), code=INVALID)
is_open or wanted(PIPE, c.create_string_buffer(b"pipe"), expected=NOT_PERMITTED)

# A kernel whose block, shared memory and parameters are set one by one.
PTX = b"""
.version 8.0
.target sm_90
.address_size 64
.visible .entry put(.param .u64 where, .param .u32 what, .param .f32 also)
{
  .reg .b64 %rd<4>;
  .reg .b32 %r<8>;
  .reg .f32 %f<2>;
  ld.param.u64 %rd1, [where];
  ld.param.u32 %r1, [what];
  ld.param.f32 %f1, [also];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.u32 %r5, %r2, %r3, %r4;
  add.u32 %r6, %r5, %r1;
  mul.wide.u32 %rd2, %r5, 8;
  add.u64 %rd3, %rd1, %rd2;
  st.global.u32 [%rd3], %r6;
  st.global.f32 [%rd3+4], %f1;
  ret;
}
"""
module = made("cuModuleLoadData", PTX)
kernel, memory, stream = made("cuModuleGetFunction", module, b"put"), made("cuMemAlloc_v2", size(4096), kind=u64), made("cuStreamCreate", 1)
call("cuFuncSetSharedMemConfig", kernel, 1)
wrong("cuFuncSetSharedMemConfig", kernel, 7, code=INVALID)
wrong("cuFuncSetBlockShape", kernel, 4, 0, 1, code=INVALID)
call("cuFuncSetBlockShape", kernel, 4, 1, 1)
call("cuFuncSetSharedSize", kernel, 64)
call("cuParamSetv", kernel, 0, c.byref(memory), 8)
call("cuParamSeti", kernel, 8, 100)
call("cuParamSetf", kernel, 12, c.c_float(1.5))
call("cuParamSetSize", kernel, 16)
wrong("cuParamSetv", kernel, 1 << 20, c.byref(memory), 8, code=INVALID)


def written(count):
    call("cuCtxSynchronize")
    words = (u32 * (2 * count))()
    call("cuMemcpyDtoH_v2", words, memory, size(8 * count))
    call("cuMemsetD8_v2", memory, 0, size(4096))
    call("cuCtxSynchronize")
    return list(words)


def expected(first, blocks):
    rows = [[first + at, 0x3FC00000] for at in range(4 * blocks)]
    return sum(rows, [])


call("cuLaunchGrid", kernel, 3, 1)
assert written(13) == expected(100, 3) + [0, 0]
call("cuParamSeti", kernel, 8, 200)
call("cuLaunchGridAsync", kernel, 2, 1, stream)
assert written(9) == expected(200, 2) + [0, 0]
call("cuLaunch", kernel)
assert written(5) == expected(200, 1) + [0, 0]
wrong("cuLaunchGrid", kernel, 0, 1, code=INVALID)

# A program that listens hears of failed calls, and can ask for them.
heard = []


@c.CFUNCTYPE(None, c.c_void_p, c.c_int, c.c_char_p, size)
def listen(data, level, text, length):
    heard.append((data, level, text[:length]))


def log(start=None, room=25601, expected=0, by="cuLogsDumpToMemory"):
    text, length = c.create_string_buffer(room), size(room)
    call(by, None if start is None else c.byref(start), text, c.byref(length), 0, expected=expected)
    assert len(text.value) == length.value
    return text.value.decode()


handle = size()
call("cuLogsRegisterCallback", listen, c.c_void_p(4711), c.byref(handle))
start = made("cuLogsCurrent", 0, kind=u32)
assert log(start) == ""
if is_open:
    call("cuLogsUnregisterCallback", handle)
    sys.exit(print("seldom passed"))
call("cuCtxGetExecAffinity", facts, 0, expected=NO_AFFINITY)
call("cuCtxGetExecAffinity", facts, 1, expected=INVALID)
call("cuFlushGPUDirectRDMAWrites", 0, 100)
call("cudaDeviceFlushGPUDirectRDMAWrites", 0, 200)
call("cuFlushGPUDirectRDMAWrites", 1, 100, expected=INVALID)
call("cuFlushGPUDirectRDMAWrites", 0, 7, expected=INVALID)
for name in ("cuArrayGetPlane", "cuArrayGetSparseProperties"):
    call(name, facts, c.c_void_p(4711), 0, expected=HANDLE)
call("cuGLInit", expected=NOT_SUPPORTED)
call("cudaGLSetGLDevice", 0, expected=NOT_SUPPORTED)
assert [(data, level) for data, level, _ in heard] == [(4711, 0)] * 2
assert b"][CUDA][E][cuGLInit] is not supported" in heard[0][2]
copy = u32(start.value)
text = log(start)
assert text.splitlines() == [each[2].decode() for each in heard] and log(start) == ""
assert log(copy, 8, INVALID) == "" and log(copy, 200).splitlines()[1:] == text.splitlines()[1:]
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "log")
    call("cudaLogsDumpToFile", None, path.encode(), 0)
    assert open(path).read().endswith(text)
    call("cuLogsDumpToFile", None, os.path.join(folder, "none", "log").encode(), 0, expected=INVALID)
call("cuLogsUnregisterCallback", handle)
call("cuLogsUnregisterCallback", handle, expected=INVALID)
call("cuGLInit", expected=NOT_SUPPORTED)
assert len(heard) == 2 and len(log(start).splitlines()) == 1
call("cuLogsRegisterCallback", None, None, None, expected=INVALID)
print("seldom passed")
