"""What driver programs built with CUDA 13 take for granted: values that are set are read back, errors are CUDA's own at the call
where CUDA gives them. Each line that is wrong is named, all at once."""
import ctypes as c
import os
import struct
import sys
import tempfile

cuda = c.CDLL("libcuda.so.1")
runtime = c.CDLL(None)
wrong = []
INVALID, DEVICE, IMAGE, CONTEXT, NO_FILE = 1, 101, 200, 201, 301
pointer, number, size = c.c_void_p, c.c_int, c.c_size_t


def gives(expected, name, *arguments, library=cuda):
    code = getattr(library, name)(*arguments)
    if code != expected:
        wrong.append(f"{name} gives {code} instead of {expected} (line {sys._getframe(1).f_lineno})")


def same(what, got, expected):
    if got != expected:
        wrong.append(f"{what} is {got!r} instead of {expected!r} (line {sys._getframe(1).f_lineno})")


# Contexts by the functions that CUDA 13 and 11.4 call cuCtxCreate.
gives(0, "cuInit", 0)
context, other, made = pointer(), pointer(), pointer()
gives(0, "cuCtxCreate_v4", c.byref(context), None, 0, 0)
gives(0, "cuCtxCreate_v3", c.byref(other), None, 0, 0, 0)
gives(DEVICE, "cuCtxCreate_v4", c.byref(made), None, 0, 7)
gives(224, "cuCtxCreate_v4", c.byref(made), struct.pack("=QixxxxQ", 1 << 40, 1, 0), 0, 0)
same("both contexts", context.value == other.value, False)
gives(0, "cuCtxSetCacheConfig", 2)
config = number()
gives(0, "cuCtxGetCacheConfig", c.byref(config))
same("the cache configuration", config.value, 2)
gives(INVALID, "cuCtxSetCacheConfig", 9)
gives(DEVICE, "cuCtxEnablePeerAccess", context, 0)
gives(CONTEXT, "cuCtxEnablePeerAccess", other, 0)
gives(CONTEXT, "cuCtxEnablePeerAccess", pointer(4711), 0)
gives(705, "cuCtxDisablePeerAccess", context)

# Devices that are no pair.
value = number()
gives(DEVICE, "cuDeviceGetP2PAttribute", c.byref(value), 3, 0, 0)
gives(DEVICE, "cuDeviceGetP2PAttribute", c.byref(value), 9999, 0, 5)
gives(INVALID, "cuDeviceGetP2PAttribute", None, 3, 0, 0)
gives(DEVICE, "cudaDeviceGetP2PAttribute", c.byref(value), 1, 0, 0, library=runtime)

# Attributes: kept, or unknown.
memory, word, wide, pool = c.c_uint64(), c.c_uint32(), c.c_uint64(), pointer()
gives(0, "cuMemAlloc_v2", c.byref(memory), size(1 << 16))
for wanted in (1, 0, 1):
    gives(0, "cuPointerSetAttribute", c.byref(c.c_uint32(wanted)), 6, memory)
    gives(0, "cuPointerGetAttribute", c.byref(word), 6, c.c_uint64(memory.value + 100))
    same("SYNC_MEMOPS", word.value, wanted)
gives(INVALID, "cuPointerSetAttribute", c.byref(word), 2, memory)
gives(INVALID, "cuPointerGetAttribute", c.byref(wide), 9999, memory)
gives(INVALID, "cuPointerGetAttributes", 1, (c.c_uint32 * 1)(9999), (pointer * 1)(c.addressof(wide)), memory)
gives(0, "cuPointerGetAttribute", c.byref(wide), 18, memory)
gives(0, "cuDeviceGetMemPool", c.byref(pool), 0)
gives(INVALID, "cuMemPoolGetAttribute", pool, 9999, c.byref(wide))
gives(INVALID, "cuMemPoolSetAttribute", pool, 9999, c.byref(wide))
gives(INVALID, "cuDeviceGetAttribute", c.byref(value), 99999, 0)
gives(0, "cuMemFree_v2", memory)
gives(0, "cuMemAlloc_v2", c.byref(memory), size(1 << 16))
gives(0, "cuPointerGetAttribute", c.byref(word), 6, memory)
same("SYNC_MEMOPS of new memory", word.value, 0)

# Copies from and to nowhere.
gives(INVALID, "cuMemcpyHtoD_v2", memory, None, size(4))
gives(INVALID, "cuMemcpyDtoH_v2", None, memory, size(4))
gives(0, "cuMemcpyHtoD_v2", memory, None, size(0))
gives(INVALID, "cudaMemcpy", memory, None, size(4), 1, library=runtime)

# Attributes of streams.
stream, second = pointer(), pointer()
for one in (stream, second):
    gives(0, "cuStreamCreate", c.byref(one), 1)
attribute = (c.c_uint64 * 8)()
gives(0, "cuStreamGetAttribute", stream, 3, attribute)
same("the synchronisation policy", attribute[0], 1)
window = (c.c_uint64 * 8)(memory.value, 1 << 16, 0x3F800000 | 1 << 32, 2)
for library, prefix in ((cuda, "cu"), (runtime, "cuda")):
    gives(0, f"{prefix}StreamSetAttribute", stream, 1, window, library=library)
    gives(0, f"{prefix}StreamSetAttribute", stream, 3, (c.c_uint64 * 8)(4), library=library)
    gives(INVALID, f"{prefix}StreamSetAttribute", stream, 3, (c.c_uint64 * 8)(9), library=library)
    gives(INVALID, f"{prefix}StreamSetAttribute", stream, 4, (c.c_uint64 * 8)(1), library=library)
    gives(INVALID, f"{prefix}StreamGetAttribute", stream, 77, attribute, library=library)
    gives(0, f"{prefix}StreamCopyAttributes", second, stream, library=library)
    gives(0, f"{prefix}StreamGetAttribute", second, 1, attribute, library=library)
    same("the window", list(attribute), list(window))
    gives(0, f"{prefix}StreamGetAttribute", second, 3, attribute, library=library)
    same("the synchronisation policy", attribute[0], 4)
green = pointer(1)
gives(0, "cuStreamGetCtx_v2", stream, c.byref(made), c.byref(green))
same("the stream's contexts", (made.value, green.value), (other.value, None))

# Fills of rectangles, synchronous, in each width.
back = (c.c_uint8 * 64)()
for width, filler, one in ((1, "cuMemsetD2D8_v2", b"\x07"), (2, "cuMemsetD2D16_v2", b"\x34\x12"), (4, "cuMemsetD2D32_v2", b"\x78\x56\x34\x12")):
    gives(0, "cuMemsetD8_v2", memory, 0, size(64))
    gives(0, filler, memory, size(16), int.from_bytes(one, "little"), size(2), size(3))
    gives(0, "cuMemcpyDtoH_v2", back, memory, size(64))
    row = (one * 2).ljust(16, b"\0")
    same(filler, bytes(back), (row * 3).ljust(64, b"\0"))

# Batches of copies, as CUDA 13 and as CUDA 12.8 have them.
count, far = 5, memory.value + (1 << 15)
host = [(c.c_uint8 * 8)(*[10 * n + k for k in range(8)]) for n in range(count)]
addresses = c.c_uint64 * count
up = addresses(*[memory.value + 1000 * n for n in range(count)])
across = addresses(*[far + 8 * n for n in range(count)])
sources = addresses(*map(c.addressof, host))
sizes = (size * count)(*[8] * count)
hints = struct.pack("=6I", 1, 0, 0, 0, 0, 0) + struct.pack("=6I", 3, 0, 0, 0, 0, 1)
starts, failed = (size * 2)(0, 2), size(0)
gives(0, "cuMemcpyBatchAsync_v2", up, sources, sizes, size(count), hints, starts, size(2), stream)
gives(0, "cudaMemcpyBatchAsync", across, up, sizes, size(count), hints, starts, size(2), stream, library=runtime)
gives(0, "cuStreamSynchronize", stream)
gives(0, "cuMemcpyDtoH_v2", back, c.c_uint64(far), size(40))
same("the batch", bytes(back[:40]), b"".join(map(bytes, host)))
gives(INVALID, "cuMemcpyBatchAsync", up, sources, sizes, size(count), hints, starts, size(2), c.byref(failed), None)
same("no copy's number", failed.value, c.c_size_t(-1).value)
gives(INVALID, "cuMemcpyBatchAsync_v2", up, sources, sizes, size(count), hints, (size * 2)(1, 2), size(2), stream)
gives(INVALID, "cuMemcpyBatchAsync_v2", up, sources, sizes, size(count), bytes(48), starts, size(2), stream)

# Copies between devices that are the same one.
gives(0, "cuMemcpyPeer", memory, context, c.c_uint64(far), other, size(40))
gives(0, "cuMemcpyDtoH_v2", back, memory, size(40))
same("the peer's copy", bytes(back[:40]), b"".join(map(bytes, host)))
pitched = struct.pack("=4Q", far, 16, 16, 2)
target = struct.pack("=4Q", memory.value, 16, 16, 2)
box = bytes(32) + pitched + struct.pack("=ixxxx", 0) + bytes(32) + target + struct.pack("=ixxxx", 0) + struct.pack("=3Q", 8, 2, 1)
gives(0, "cuMemsetD8_v2", memory, 0, size(64))
gives(0, "cudaMemcpy3DPeer", box, library=runtime)
gives(0, "cuMemcpyDtoH_v2", back, memory, size(32))
same("the peer's box", bytes(back[:32]), bytes(host[0]) + bytes(8) + bytes(host[2]) + bytes(8))

# Memory that is not managed cannot be advised about.
gives(INVALID, "cuMemAdvise_v2", memory, size(4096), 1, struct.pack("=ii", 1, 0))
place = c.c_uint64(1)  # a location in a register: device 0
gives(INVALID, "cuMemPrefetchAsync_v2", memory, size(4096), place, 0, stream)
gives(INVALID, "cudaMemPrefetchAsync", memory, size(4096), place, 0, stream, library=runtime)

# Images that are none, and files that are not there.
PTX = b"""/* a comment */ // and one more
.version 8.0
.target sm_90
.address_size 64
.visible .entry put(.param .u64 where, .param .u32 what)
{
  .reg .b64 %rd<2>;
  .reg .b32 %r<2>;
  ld.param.u64 %rd1, [where];
  ld.param.u32 %r1, [what];
  st.global.u32 [%rd1], %r1;
  ret;
}
"""
module, kernel = pointer(), pointer()
gives(IMAGE, "cuModuleLoadData", c.byref(module), bytes((0xDE + 7 * n) & 0xFF for n in range(63)))
gives(IMAGE, "cuModuleLoadData", c.byref(module), b"hello world, not ptx\n")
with tempfile.TemporaryDirectory() as folder:
    empty = os.path.join(folder, "empty")
    open(empty, "w").close()
    gives(IMAGE, "cuModuleLoad", c.byref(module), empty.encode())
    gives(NO_FILE, "cuModuleLoad", c.byref(module), b"/not/there")
    link = pointer()
    gives(0, "cuLinkCreate_v2", 0, None, None, c.byref(link))
    gives(IMAGE, "cuLinkAddFile_v2", link, 1, empty.encode(), 0, None, None)
    gives(NO_FILE, "cuLinkAddFile_v2", link, 1, b"/not/there", 0, None, None)
gives(0, "cuModuleLoadData", c.byref(module), PTX)
gives(0, "cuModuleGetFunction", c.byref(kernel), module, b"put")


# Launches that cannot be.
def launch(expected, grid=(1, 1, 1), block=(1, 1, 1), *attributes):
    """Each attribute is its number and its first words. What is refused writes nothing."""
    given = b"".join(struct.pack("=II", one[0], 0) + struct.pack(f"={len(one) - 1}I", *one[1:]).ljust(64, b"\0") for one in attributes)
    buffer = c.create_string_buffer(given, max(len(given), 1))
    config = struct.pack("=7IxxxxQQI4x", *grid, *block, 0, stream.value, c.addressof(buffer), len(attributes))
    address, what = c.c_uint64(memory.value), c.c_uint32(4711)
    gives(0, "cuMemsetD32_v2", memory, 0, size(1))
    # The stream does not wait for the legacy stream.
    gives(0, "cuCtxSynchronize")
    gives(expected, "cuLaunchKernelEx", config, kernel, (pointer * 2)(c.addressof(address), c.addressof(what)), None)
    gives(0, "cuStreamSynchronize", stream)
    gives(0, "cuMemcpyDtoH_v2", c.byref(word), memory, size(4))
    same(f"what a launch of {grid} {block} {attributes} wrote", word.value, 0 if expected else 4711)


CLUSTER, COOPERATIVE = 4, 2
launch(0)
launch(0, (4, 1, 1), (1, 1, 1), (COOPERATIVE, 1))
for cluster in ((0, 1, 1), (3, 1, 1), (1, 2, 1)):
    launch(INVALID, (4, 1, 1), (1, 1, 1), (CLUSTER, *cluster))
launch(912, (64, 1, 1), (1, 1, 1), (CLUSTER, 32, 1, 1))
launch(INVALID, (1, 1, 1), (1, 1, 1), (15, 1))
launch(INVALID, (1, 1, 1), (1, 1, 1), (9999, 1))
launch(720, (1 << 20, 1, 1), (64, 1, 1), (COOPERATIVE, 1))
launch(INVALID, (1, 1, 1), (1, 1, 128))
launch(INVALID, (1, 1 << 17, 1))

# Launched by a graph, all blocks at once.
graph, ready, what = pointer(), pointer(), c.c_uint32(815)
parameters = (pointer * 2)(c.addressof(memory), c.addressof(what))
cooperative = c.create_string_buffer(struct.pack("=III", COOPERATIVE, 0, 1), 72)
gives(0, "cuStreamBeginCapture_v2", stream, 2)
for _ in range(2):
    config = struct.pack("=7IxxxxQQI4x", 4, 1, 1, 1, 1, 1, 0, stream.value, c.addressof(cooperative), 1)
    gives(0, "cuLaunchKernelEx", config, kernel, parameters, None)
gives(0, "cuStreamEndCapture", stream, c.byref(graph))
gives(0, "cuGraphInstantiateWithFlags", c.byref(ready), graph, c.c_uint64(0))
gives(0, "cuGraphLaunch", ready, stream)
gives(0, "cuStreamSynchronize", stream)
gives(0, "cuMemcpyDtoH_v2", c.byref(word), memory, size(4))
same("what a graph's cooperative launches wrote", word.value, 815)

# The best size of a block.
blocks, threads = number(), number()
gives(0, "cuOccupancyMaxPotentialBlockSize", c.byref(blocks), c.byref(threads), kernel, None, size(0), 0)
same("a whole GPU", blocks.value > 0 and 0 < threads.value <= 1024 and threads.value % 32 == 0, True)
asked = []
count_bytes = c.CFUNCTYPE(size, number)(lambda of: asked.append(of) or 0)
gives(0, "cuOccupancyMaxPotentialBlockSizeWithFlags", c.byref(blocks), c.byref(threads), kernel, count_bytes, size(0), 100, 0)
same("the limit of 100 threads", 0 < threads.value <= 100 and asked[0] == 100, True)
assert not wrong, "\n".join(wrong)
print("cuda13 passed")
