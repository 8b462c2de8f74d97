"""A program for CUDA 12, without PyTorch: its names, its structures, all ways of launching, a graph. Argument: its libcudart."""
import ctypes as c
import os
import struct
import subprocess
import sys
import tempfile

runtime_path = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))
path = os.path.join(tempfile.mkdtemp(), "libextension.so")
subprocess.run(
    ["cc", "-shared", "-fPIC", "-O1", "-o", path, os.path.join(here, "extension.c"), runtime_path,
     "-Wl,-rpath," + os.path.dirname(runtime_path)], check=True)
extension = c.CDLL(path)  # brings its libcudart along
runtime = c.CDLL(None)
pointer, size = c.c_void_p, c.c_size_t
extension.extension_add.argtypes = [c.c_int, pointer, c.c_int, c.c_float, pointer]
extension.extension_set_scale.argtypes = [c.c_float]


def good(code):
    assert code == 0, code


release, major, multiprocessors, clock = (c.c_int() for _ in range(4))
good(runtime.cudaRuntimeGetVersion(c.byref(release)))
assert release.value // 1000 == 12, release.value
attributes = {75: major, 16: multiprocessors, 13: clock}
for number, value in attributes.items():
    good(runtime.cudaDeviceGetAttribute(c.byref(value), number, 0))
for name, room in (("cudaGetDeviceProperties_v2", 1032), ("cudaGetDeviceProperties", 728)):
    properties = (c.c_uint8 * (room + 8))(*[0xEE] * (room + 8))
    good(getattr(runtime, name)(properties, 0))
    told = {at: struct.unpack_from("i", properties, at)[0] for at in (348, 360, 388)}
    assert told == {348: clock.value, 360: major.value, 388: multiprocessors.value}, told
    assert bytes(properties[room:]) == b"\xee" * 8, "more than there is room for"

count = 1000
data, pinned, stream, start, end = (pointer() for _ in range(5))
good(runtime.cudaMalloc(c.byref(data), size(4 * count)))
good(runtime.cudaMallocHost(c.byref(pinned), size(4 * count)))
good(runtime.cudaStreamCreate(c.byref(stream)))
place = (c.c_uint64 * 4)(*[0xEE] * 4)
good(runtime.cudaPointerGetAttributes(place, data))
assert list(place) == [2, data.value, 0, 0xEE], list(place)

good(extension.extension_set_scale(2.0))
values = (c.c_float * count)()
for way in range(4):
    good(runtime.cudaMemsetAsync(data, 0, size(4 * count), stream))
    good(extension.extension_add(way, data, count, 1.5, stream))
    good(runtime.cudaMemcpyAsync(pinned, data, size(4 * count), 2, stream))
    good(runtime.cudaStreamSynchronize(stream))
    good(runtime.cudaMemcpy(values, data, size(4 * count), 2))
    assert set(values) == {3.0} and set((c.c_float * count).from_address(pinned.value)) == {3.0}, way

milliseconds = c.c_float(-1)
for event in (start, end):
    good(runtime.cudaEventCreate(c.byref(event)))
good(runtime.cudaEventRecord(start, stream))
good(extension.extension_add(0, data, count, 1.0, stream))
good(runtime.cudaEventRecord(end, stream))
good(runtime.cudaThreadSynchronize())
for name in ("cudaEventElapsedTime", "cudaEventElapsedTime_v2"):
    good(getattr(runtime, name)(c.byref(milliseconds), start, end))
    assert 0 <= milliseconds.value < 10000

# The three ways to ask for a capture, each with as many places as it has, and one behind them that stays.
graph, runnable = pointer(), pointer()
for suffix, places in (("", 2), ("_v2", 5), ("_v3", 6)):
    good(runtime.cudaStreamBeginCapture(stream, 0))
    good(extension.extension_add(3, data, count, 0.5, stream))
    results = [c.c_uint64(0xEE) for _ in range(places + 1)]
    good(getattr(runtime, "cudaStreamGetCaptureInfo" + suffix)(stream, *map(c.byref, results)))
    assert results[0].value & 0xFFFFFFFF == 1 and results[1].value not in (0, 0xEE), results
    assert results[-1].value == 0xEE and all(result.value != 0xEE for result in results[2:-1]), results
    good(runtime.cudaStreamEndCapture(stream, c.byref(graph)))
good(runtime.cudaGraphInstantiate(c.byref(runnable), graph, c.c_uint64(0)))
for _ in range(2):
    good(runtime.cudaGraphLaunch(runnable, stream))
good(runtime.cudaStreamSynchronize(stream))
good(runtime.cudaMemcpy(values, data, size(4 * count), 2))
assert set(values) == {3.0 + 2.0 + 2 * 1.0}, values[0]

INVALID = 1
assert runtime.cudaMemAdvise(data, size(16), 1, 0) == INVALID, "that is asked of managed memory alone"
assert runtime.cudaGetLastError() == INVALID
good(runtime.cudaThreadExit())
print("cuda12 passed")
