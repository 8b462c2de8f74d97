"""The shim's runtime functions and those of the real libcudart (over the driver surface), side by side in one process."""
import ctypes as c
import sys

real = c.CDLL(sys.argv[1])  # by name: the real one
own = c.CDLL(None)  # whoever comes first: the preloaded one
assert c.cast(own.cudaMalloc, c.c_void_p).value != c.cast(real.cudaMalloc, c.c_void_p).value
release = c.c_int()
assert real.cudaRuntimeGetVersion(c.byref(release)) == 0
is_cuda_12 = release.value // 1000 == 12
different = []


def compare(what, call):
    """Result, and what is the last error before and after asking for it."""
    answers = []
    for library in (real, own):
        library.cudaGetLastError()
        answers.append((call(library), library.cudaPeekAtLastError(), library.cudaGetLastError(), library.cudaGetLastError()))
    if answers[0] != answers[1]:
        different.append(f"{what}: {answers[0]}, and here {answers[1]}")


def results(kind, count, function):
    """A call with an array of results, filled with a pattern to see what stays untouched."""
    def call(library):
        values = (kind * count)(*[0x5A] * count)
        return (function(library, values), *values)
    return call


pointer, size, u64, i32 = c.c_void_p, c.c_size_t, c.c_uint64, c.c_int
for name in ["cudaGetDeviceProperties"] + ["cudaGetDeviceProperties_v2"] * is_cuda_12:
    for device in (0, 1):
        compare(f"{name} {device}", results(c.c_uint8, 1032, lambda l, v: getattr(l, name)(v, device)))
for attribute in range(160):
    compare(f"cudaDeviceGetAttribute {attribute}", results(i32, 1, lambda l, v: l.cudaDeviceGetAttribute(v, attribute, 0)))
for name in ("cudaGetDeviceCount", "cudaGetDevice", "cudaRuntimeGetVersion", "cudaDriverGetVersion",
             "cudaDeviceGetCacheConfig", "cudaThreadExchangeStreamCaptureMode"):
    compare(name, results(i32, 1, lambda l, v: getattr(l, name)(v)))
for device in (0, 1, -1):
    compare(f"cudaSetDevice {device}", lambda l: l.cudaSetDevice(device))
    compare(f"cudaDeviceCanAccessPeer {device}", results(i32, 1, lambda l, v: l.cudaDeviceCanAccessPeer(v, 0, device)))
compare("cudaDeviceEnablePeerAccess 1", lambda l: l.cudaDeviceEnablePeerAccess(1, 0))
compare("priorities", results(i32, 2, lambda l, v: l.cudaDeviceGetStreamPriorityRange(v, c.byref(v, 4))))
for limit in range(8):
    compare(f"cudaDeviceGetLimit {limit}", results(u64, 1, lambda l, v: l.cudaDeviceGetLimit(v, limit)))
for room in (32, 13, 5):
    compare(f"cudaDeviceGetPCIBusId {room}", results(c.c_uint8, 32, lambda l, v: l.cudaDeviceGetPCIBusId(v, room, 0)))
compare("cudaDeviceGetByPCIBusId", results(i32, 1, lambda l, v: l.cudaDeviceGetByPCIBusId(v, b"0001:ff:00.0")))

compare("cudaMalloc 0", results(u64, 1, lambda l, v: l.cudaMalloc(v, size(0))))
compare("cudaMalloc null", lambda l: l.cudaMalloc(None, size(10)))
compare("cudaMalloc much", results(u64, 1, lambda l, v: l.cudaMalloc(v, size(1 << 50))))
compare("cudaHostAlloc 0", results(u64, 1, lambda l, v: l.cudaHostAlloc(v, size(0), 0)))
compare("cudaFree null", lambda l: l.cudaFree(None))
for name in ("cudaFree", "cudaFreeHost", "cudaHostUnregister"):
    compare(name + " wrong", lambda l: getattr(l, name)(pointer(0x1234)))
compare("cudaMemGetInfo", results(u64, 2, lambda l, v: l.cudaMemGetInfo(v, c.byref(v, 8))))
compare("cudaMallocAsync", lambda l: l.cudaMallocAsync((u64 * 1)(), size(64), None))
for flags in (0, 3, 4):
    compare(f"cudaMallocManaged flags {flags}", lambda l: l.cudaMallocManaged((u64 * 1)(), size(64), flags))
for flags in (0, 1):
    compare(f"cudaMallocManaged 0 {flags}", results(u64, 1, lambda l, v: l.cudaMallocManaged(v, size(0), flags)))
compare("cudaDeviceGetDefaultMemPool", results(u64, 1, lambda l, v: l.cudaDeviceGetDefaultMemPool(v, 0)))
compare("cudaIpcGetEventHandle", lambda l: l.cudaIpcGetEventHandle((u64 * 8)(), None))

device, pinned, managed, pageable = u64(), u64(), u64(), (c.c_uint8 * 4096)()
assert own.cudaMalloc(c.byref(device), size(1 << 20)) == 0
assert own.cudaHostAlloc(c.byref(pinned), size(4096), 0) == 0
assert own.cudaMallocManaged(c.byref(managed), size(8192), 1) == 0
places = {"device": device.value, "pinned": pinned.value, "managed": managed.value, "pageable": c.addressof(pageable)}
for name, address in (*places.items(), ("null", 0)):
    # The words after these, which only CUDA 13 has, are reserved.
    compare(f"cudaPointerGetAttributes {name}", lambda l: results(
        u64, 11, lambda l, v: l.cudaPointerGetAttributes(v, pointer(address)))(l)[:None if is_cuda_12 else 4])
    compare(f"cudaHostGetFlags {name}", results(u64, 1, lambda l, v: l.cudaHostGetFlags(v, pointer(address))))
    compare(f"cudaHostGetDevicePointer {name}", results(u64, 1, lambda l, v: l.cudaHostGetDevicePointer(v, pointer(address), 0)))
    compare(f"cudaMemset {name}", lambda l: l.cudaMemset(pointer(address), 1, size(16)))
for name, address in places.items():
    for kind in range(5):  # a location in a register, or the number of a device
        for advice in range(8):
            place = c.c_uint64(kind)
            compare(f"cudaMemAdvise {name} {advice} {kind}", lambda l: l.cudaMemAdvise(
                pointer(address), size(4096), advice, i32(kind - 1) if is_cuda_12 else place))
    for attribute in range(10):
        for room in (0, 4, 12):
            compare(f"cudaMemRangeGetAttribute {name} {attribute} {room}", results(
                i32, 3, lambda l, v: l.cudaMemRangeGetAttribute(v, size(room), attribute, pointer(address), size(4096))))
    for flags in range(5):
        compare(f"cudaStreamAttachMemAsync {name} {flags}", lambda l: l.cudaStreamAttachMemAsync(None, pointer(address), size(0), flags))
for to in places:
    for source in places:
        for kind in range(6):
            copied = pointer(places[to]), pointer(places[source] + 2048), size(64), kind
            compare(f"cudaMemcpy {to} {source} {kind}", lambda l: l.cudaMemcpy(*copied))
            compare(f"cudaMemcpyAsync {to} {source} {kind}", lambda l: l.cudaMemcpyAsync(*copied, None))
compare("cudaMemcpy 0", lambda l: l.cudaMemcpy(pointer(device.value), pointer(device.value), size(0), 9))
for width, height, to_pitch, from_pitch in ((32, 1, 8, 64), (32, 2, 8, 64), (32, 2, 64, 8), (32, 0, 8, 8), (32, 2, 32, 32)):
    compare(f"cudaMemcpy2D {width} {height} {to_pitch} {from_pitch}", lambda l: l.cudaMemcpy2D(
        pointer(device.value), size(to_pitch), pageable, size(from_pitch), size(width), size(height), 1))

for flags in range(18):
    compare(f"cudaEventCreateWithFlags {flags}", lambda l: l.cudaEventCreateWithFlags((u64 * 1)(), flags))
    compare(f"cudaStreamCreateWithFlags {flags}", lambda l: l.cudaStreamCreateWithFlags((u64 * 1)(), flags))
for name in ("cudaEventDestroy", "cudaEventQuery", "cudaEventSynchronize", "cudaStreamDestroy", "cudaStreamCreate"):
    compare(name + " null", lambda l: getattr(l, name)(None))
compare("cudaEventRecord null", lambda l: l.cudaEventRecord(None, None))
compare("cudaStreamBeginCapture", lambda l: l.cudaStreamBeginCapture(None, 0))
compare("cudaStreamEndCapture", lambda l: l.cudaStreamEndCapture(None, (u64 * 1)()))
compare("cudaStreamIsCapturing", results(i32, 1, lambda l, v: l.cudaStreamIsCapturing(None, v)))
capture_info = {"": 2, "_v2": 5, "_v3": 6} if is_cuda_12 else {"": 6}
for suffix, count in capture_info.items():
    compare("cudaStreamGetCaptureInfo" + suffix, results(
        i32, 1, lambda l, v: getattr(l, "cudaStreamGetCaptureInfo" + suffix)(None, v, *[None] * (count - 1))))
compare("cudaGraphInstantiate", lambda l: l.cudaGraphInstantiate((u64 * 1)(), None, u64(0)))

one = u64(1 << 32 | 1), c.c_uint32(1)  # dim3 in two registers
unregistered = c.addressof(pageable)
for name, kernel in (("cudaLaunchKernel", 0), ("cudaLaunchKernel", unregistered), ("__cudaLaunchKernel", 0), ("__cudaLaunchKernel", unregistered)):
    launch = pointer(kernel), *one, *one, None, size(0), None
    compare(f"{name} {kernel}", lambda l: l.__getattr__(name)(*launch))
for kernel in (0, unregistered):
    for name in ("cudaFuncGetAttributes", "__cudaGetKernel", "cudaGetKernel", "cudaGetFuncBySymbol", "cudaGetSymbolAddress"):
        compare(f"{name} {kernel}", lambda l: l.__getattr__(name)((u64 * 40)(), pointer(kernel)))
compare("cudaMemcpyToSymbol", lambda l: l.cudaMemcpyToSymbol(pointer(unregistered), pageable, size(4), size(0), 1))
compare("__cudaPopCallConfiguration", lambda l: l.__getattr__("__cudaPopCallConfiguration")(*[(u64 * 4)() for _ in range(4)]))
for name in (b"cuMemAlloc", b"cuNothing", b"", b"cuKernelGetFunction", b"cuCtxGetDevice"):
    for version in (2000, 11000, 12080, 13000, 13010):
        compare(f"entry point {name} {version}", results(
            u64, 2, lambda l, v: l.cudaGetDriverEntryPointByVersion(name, v, version, u64(0), c.byref(v, 8))))
    compare(f"entry point {name}", results(u64, 1, lambda l, v: l.cudaGetDriverEntryPoint(name, v, u64(0), None)))
for library in (real, own):
    library.cudaGetErrorName.restype = library.cudaGetErrorString.restype = c.c_char_p
for code in (*range(1000), 10000, -1):
    compare(f"error {code}", lambda l: (l.cudaGetErrorName(code), l.cudaGetErrorString(code)))

if is_cuda_12:
    compare("__cudaGetKernel", results(u64, 2, lambda l, v: l.__getattr__("__cudaGetKernel")(v, pointer(unregistered))))
    for name in ("cudaSetDoubleForDevice", "cudaSetDoubleForHost"):
        compare(name, results(c.c_double, 1, lambda l, v: getattr(l, name)(v)))
    compare("cudaThreadGetLimit", results(u64, 1, lambda l, v: l.cudaThreadGetLimit(v, 0)))
    compare("cudaThreadGetCacheConfig", results(i32, 1, lambda l, v: l.cudaThreadGetCacheConfig(v)))
    compare("cudaThreadSetCacheConfig", lambda l: l.cudaThreadSetCacheConfig(1))
    compare("cudaThreadSynchronize", lambda l: l.cudaThreadSynchronize())

# Objects of one are good for the other.
event, stream = u64(), u64()
assert own.cudaEventCreate(c.byref(event)) == 0 and real.cudaStreamCreate(c.byref(stream)) == 0
compare("record", lambda l: l.cudaEventRecord(pointer(event.value), pointer(stream.value)))
compare("synchronize", lambda l: l.cudaStreamSynchronize(pointer(stream.value)))
compare("query", lambda l: l.cudaEventQuery(pointer(event.value)))

assert not different, "\n".join(different)
print("same answers passed")
