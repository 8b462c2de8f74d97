"""Several devices in one program, by ctypes: what the driver, the runtime and NVML say of each; contexts, streams, memory, pools and
copies between them; and CUDA_VISIBLE_DEVICES. Without PyTorch, so that a child may be started at any moment."""
import ctypes as c
import os
import subprocess
import sys
import threading
import time

COUNT = int(os.environ.get("TORPOR_TEST_DEVICES", "3"))
REF, MIB = c.byref, 1 << 20
NO_DEVICE, INVALID_DEVICE, INVALID_VALUE, INVALID_CONTEXT, NOT_READY, ALREADY, NOT_ENABLED = 100, 101, 1, 201, 600, 704, 705
cu, rt = c.CDLL("libcuda.so.1"), c.CDLL(None)
u64, size, u32, ptr = c.c_uint64, c.c_size_t, c.c_uint, c.c_void_p

PTX = b"""
.version 7.0
.target sm_80
.address_size 64

.visible .global .align 4 .u32 mark = 0;

.visible .entry spin(.param .u64 flag)
{
    .reg .pred %p;
    .reg .b32 %r<2>;
    .reg .b64 %d<2>;
    ld.param.u64 %d1, [flag];
AGAIN:
    ld.volatile.global.u32 %r1, [%d1];
    setp.eq.u32 %p, %r1, 0;
    @%p bra AGAIN;
    ret;
}

.visible .entry bump()
{
    .reg .b32 %r<2>;
    ld.global.u32 %r1, [mark];
    add.u32 %r1, %r1, 1;
    st.global.u32 [mark], %r1;
    ret;
}
"""


def ok(code, *values):
    assert code == 0, f"error {code} (line {sys._getframe(1).f_lineno})"
    return values[0] if values else None


def gives(expected, code):
    assert code == expected, f"error {code} instead of {expected} (line {sys._getframe(1).f_lineno})"


def number(function, *arguments, kind=c.c_int):
    value = kind()
    ok(function(REF(value), *arguments))
    return value.value


def bus_id(function, device):
    place = c.create_string_buffer(32)
    ok(function(place, 32, device))
    return place.value.decode()


def uuid(device):
    digits = (c.c_ubyte * 16)()
    ok(cu.cuDeviceGetUuid_v2(digits, device))
    return bytes(digits).hex()


def primary(device):
    return number(cu.cuDevicePrimaryCtxRetain, device, kind=ptr)


def attribute(which, address, kind=c.c_int):
    value = kind()
    ok(cu.cuPointerGetAttribute(REF(value), which, u64(address)))
    return value.value


def runtime_device(address):
    found = (c.c_int * 6)()
    ok(rt.cudaPointerGetAttributes(found, ptr(address)))
    return found[1]


def allocate(bytes):
    return number(cu.cuMemAlloc_v2, size(bytes), kind=u64)


def write(address, text):
    ok(cu.cuMemcpyHtoD_v2(u64(address), text, size(len(text))))


def read(address, count):
    place = c.create_string_buffer(count)
    ok(cu.cuMemcpyDtoH_v2(place, u64(address), size(count)))
    return place.raw


# What a child sees of this process's devices.
if sys.argv[1:]:
    code = cu.cuInit(0)
    print(f"error {code}" if code else ",".join(uuid(device) for device in range(number(cu.cuDeviceGetCount))))
    sys.exit()


def names():
    assert number(cu.cuDeviceGetCount) == number(rt.cudaGetDeviceCount) == COUNT
    seen = [(uuid(device), bus_id(cu.cuDeviceGetPCIBusId, device)) for device in range(COUNT)]
    assert len({one for one, _ in seen}) == len({two for _, two in seen}) == COUNT, seen
    for device, (_, place) in enumerate(seen):
        assert number(cu.cuDeviceGet, device) == device and bus_id(rt.cudaDeviceGetPCIBusId, device) == place
        for find in (cu.cuDeviceGetByPCIBusId, rt.cudaDeviceGetByPCIBusId):
            assert number(find, place.encode()) == device
        parts = [number(cu.cuDeviceGetAttribute, which, device) for which in (50, 33, 34)]
        assert "{:04X}:{:02X}:{:02X}.0".format(*parts) == place
        # Multiprocessors: one GPU under several names.
        assert number(cu.cuDeviceGetAttribute, 16, device) == number(cu.cuDeviceGetAttribute, 16, 0)
        properties = c.create_string_buffer(2048)
        ok(rt.cudaGetDeviceProperties(properties, device))
        assert properties.raw[256:272].hex() == seen[device][0]
    for wrong in (-1, COUNT):
        gives(INVALID_DEVICE, cu.cuDeviceGet(REF(c.c_int()), wrong))
        gives(INVALID_DEVICE, rt.cudaSetDevice(wrong))
        gives(INVALID_DEVICE, cu.cuDeviceGetAttribute(REF(c.c_int()), 16, wrong))
    rt.cudaGetLastError()
    return seen


def nvml(seen):
    """NVML counts all, whatever CUDA_VISIBLE_DEVICES says, and tells no links between them: processes use them on different GPUs."""
    ml = c.CDLL("libnvidia-ml.so.1")
    ok(ml.nvmlInit_v2())
    assert number(ml.nvmlDeviceGetCount_v2, kind=u32) == COUNT
    handles = []
    for device, (identity, place) in enumerate(seen):
        handle, same, at = ptr(), ptr(), u32()
        ok(ml.nvmlDeviceGetHandleByIndex_v2(device, REF(handle)))
        text = c.create_string_buffer(96)
        ok(ml.nvmlDeviceGetUUID(handle, text, 96))
        assert text.value.decode().replace("-", "")[3:] == identity
        ok(ml.nvmlDeviceGetHandleByUUID(text.value, REF(same)))
        assert same.value == handle.value
        ok(ml.nvmlDeviceGetHandleByPciBusId_v2(place.encode(), REF(same)))
        assert same.value == handle.value
        ok(ml.nvmlDeviceGetIndex(handle, REF(at)))
        assert at.value == device
        handles.append(handle)
    gives(2, ml.nvmlDeviceGetHandleByIndex_v2(COUNT, REF(ptr())))
    gives(2, ml.nvmlDeviceGetIndex(ptr(handles[-1].value + 1), REF(u32())))
    status = c.c_int()
    ok(ml.nvmlDeviceGetP2PStatus(handles[0], handles[0], 0, REF(status)))
    assert status.value == 0
    ok(ml.nvmlDeviceGetP2PStatus(handles[0], handles[1], 0, REF(status)))
    assert status.value == 5, "not supported"
    ok(ml.nvmlShutdown())


def contexts():
    handles = [primary(device) for device in range(COUNT)]
    assert len(set(handles)) == COUNT and handles == [primary(device) for device in range(COUNT)]
    gives(INVALID_CONTEXT, cu.cuCtxGetDevice(REF(c.c_int())))
    for device in range(COUNT):
        ok(cu.cuCtxSetCurrent(ptr(handles[device])))
        assert number(cu.cuCtxGetDevice) == number(rt.cudaGetDevice) == device
        ok(cu.cuCtxSynchronize())
    ok(rt.cudaSetDevice(0))
    assert number(cu.cuCtxGetCurrent, kind=ptr) == handles[0]
    ok(rt.cudaSetDevice(1))
    assert number(cu.cuCtxGetCurrent, kind=ptr) == handles[1]
    # A thread has its own current device, the first at first.
    told = []
    thread = threading.Thread(target=lambda: told.append(number(rt.cudaGetDevice)))
    thread.start()
    thread.join()
    assert told == [0] and number(rt.cudaGetDevice) == 1
    other = number(cu.cuCtxCreate_v2, 0, 1, kind=ptr)
    assert number(cu.cuCtxGetDevice) == 1 and other not in handles
    ok(cu.cuCtxDestroy_v2(ptr(other)))
    assert number(cu.cuCtxGetCurrent, kind=ptr) == handles[1]
    flags, active = u32(), c.c_int()
    ok(cu.cuDevicePrimaryCtxSetFlags_v2(1, 4))
    for device, expected in ((0, 0), (1, 4)):
        ok(cu.cuDevicePrimaryCtxGetState(device, REF(flags), REF(active)))
        assert (flags.value, active.value) == (expected, 1)
    return handles


def memory(handles):
    addresses = {}
    for device in range(COUNT):
        ok(rt.cudaSetDevice(device))
        addresses[device] = [allocate(bytes) for bytes in (256, 8 * MIB)]
        addresses[device].append(number(rt.cudaHostAlloc, size(4096), 0, kind=ptr))
        addresses[device].append(number(cu.cuMemAllocManaged, size(4096), 1, kind=u64))
    ok(rt.cudaSetDevice(0))
    for device, its in addresses.items():
        for address in its:
            assert attribute(9, address) == runtime_device(address) == device, (device, its.index(address))
            assert attribute(1, address, ptr) == handles[device]
        small = its[0]
        assert attribute(9, small + 255) == device
        free, total = size(), size()
        ok(rt.cudaMemGetInfo(REF(free), REF(total)))
        assert 0 < free.value < total.value
    # An address that is another device's next is that.
    for its in addresses.values():
        ok(cu.cuMemFree_v2(u64(its[0])))
        ok(cu.cuMemFree_v2(u64(its[1])))
        ok(cu.cuMemFreeHost(ptr(its[2])))
        ok(cu.cuMemFree_v2(u64(its[3])))
    again = [allocate(8 * MIB) for _ in range(COUNT)]
    assert {attribute(9, address) for address in again} == {0}
    for address in again:
        ok(cu.cuMemFree_v2(u64(address)))
    objects()


def objects():
    """Memory that the program maps is the device's that it said."""
    class Property(c.Structure):
        _fields_ = [("words", u32 * 8)]
    wanted = Property((u32 * 8)(1, 1, 1, 1))
    handle, address = number(cu.cuMemCreate, size(2 * MIB), REF(wanted), u64(0), kind=u64), u64()
    ok(cu.cuMemAddressReserve(REF(address), size(2 * MIB), size(0), u64(0), u64(0)))
    ok(cu.cuMemMap(address, size(2 * MIB), size(0), u64(handle), u64(0)))
    access = (c.c_int * 6)(1, 0, 3, 1, 1, 3)
    ok(cu.cuMemSetAccess(address, size(2 * MIB), access, size(2)))
    assert attribute(9, address.value) == 1
    ok(cu.cuMemUnmap(address, size(2 * MIB)))
    ok(cu.cuMemRelease(u64(handle)))
    ok(cu.cuMemAddressFree(address, size(2 * MIB)))
    gives(INVALID_DEVICE, cu.cuMemCreate(REF(u64()), size(2 * MIB), REF(Property((u32 * 8)(1, 1, 1, COUNT))), u64(0)))
    # NCCL asks for the granularity of the host's memory and gives up if that fails; that there is none it takes well.
    host = Property((u32 * 8)(1, 1, 3, 0))
    assert number(cu.cuMemGetAllocationGranularity, REF(host), 0, kind=size) == 2 * MIB
    assert cu.cuMemCreate(REF(u64()), size(2 * MIB), REF(host), u64(0)) != 0


def pools():
    own = [number(cu.cuDeviceGetDefaultMemPool, device, kind=ptr) for device in range(COUNT)]
    assert len(set(own)) == COUNT and own == [number(rt.cudaDeviceGetMemPool, device, kind=ptr) for device in range(COUNT)]
    ok(rt.cudaSetDevice(1))
    stream = number(rt.cudaStreamCreate, kind=ptr)
    ok(rt.cudaSetDevice(0))
    # The stream's device is the one that allocates.
    address = number(rt.cudaMallocAsync, size(4096), ptr(stream), kind=ptr)
    assert runtime_device(address) == 1
    ok(rt.cudaFreeAsync(ptr(address), ptr(stream)))
    gives(INVALID_DEVICE, cu.cuDeviceSetMemPool(0, ptr(own[1])))
    address = number(rt.cudaMallocFromPoolAsync, size(4096), ptr(own[1]), ptr(0), kind=ptr)
    assert runtime_device(address) == 1
    ok(rt.cudaFree(ptr(address)))
    ok(rt.cudaStreamDestroy(ptr(stream)))


def peers(handles):
    assert number(cu.cuDeviceCanAccessPeer, 0, 1) == number(rt.cudaDeviceCanAccessPeer, 1, 0) == 1
    assert number(cu.cuDeviceCanAccessPeer, 0, 0) == 0
    assert [number(cu.cuDeviceGetP2PAttribute, which, 0, 1) for which in (1, 2, 3, 4)] == [0, 1, 1, 1]
    gives(INVALID_DEVICE, cu.cuDeviceGetP2PAttribute(REF(c.c_int()), 2, 0, 0))
    gives(INVALID_VALUE, cu.cuDeviceGetP2PAttribute(REF(c.c_int()), 99, 0, 1))
    ok(rt.cudaSetDevice(0))
    gives(INVALID_DEVICE, rt.cudaDeviceEnablePeerAccess(0, 0))
    gives(INVALID_VALUE, rt.cudaDeviceEnablePeerAccess(1, 1))
    gives(NOT_ENABLED, rt.cudaDeviceDisablePeerAccess(1))
    ok(rt.cudaDeviceEnablePeerAccess(1, 0))
    gives(ALREADY, rt.cudaDeviceEnablePeerAccess(1, 0))
    gives(ALREADY, cu.cuCtxEnablePeerAccess(ptr(handles[1]), 0))
    ok(rt.cudaSetDevice(1))
    ok(cu.cuCtxEnablePeerAccess(ptr(handles[0]), 0))
    ok(cu.cuCtxDisablePeerAccess(ptr(handles[0])))
    gives(NOT_ENABLED, cu.cuCtxDisablePeerAccess(ptr(handles[0])))
    ok(rt.cudaSetDevice(0))
    ok(rt.cudaDeviceReset())
    ok(rt.cudaDeviceEnablePeerAccess(1, 0))
    rt.cudaGetLastError()
    copies(handles)


def copies(handles):
    ok(rt.cudaSetDevice(0))
    one = allocate(MIB)
    ok(rt.cudaSetDevice(1))
    other, stream = allocate(MIB), number(rt.cudaStreamCreate, kind=ptr)
    text = bytes(range(256)) * 16
    write(one, text)
    ok(rt.cudaMemcpyPeer(ptr(other), 1, ptr(one), 0, size(len(text))))
    assert read(other, len(text)) == text
    write(one, text[::-1])
    ok(rt.cudaMemcpyPeerAsync(ptr(other), 1, ptr(one), 0, size(len(text)), ptr(stream)))
    ok(rt.cudaStreamSynchronize(ptr(stream)))
    assert read(other, len(text)) == text[::-1]
    write(other, text)
    ok(cu.cuMemcpyPeer(u64(one), ptr(handles[0]), u64(other), ptr(handles[1]), size(len(text))))
    assert read(one, len(text)) == text
    write(other, text[::-1])
    ok(cu.cuMemcpyPeerAsync(u64(one), ptr(handles[0]), u64(other), ptr(handles[1]), size(len(text)), ptr(stream)))
    ok(cu.cuStreamSynchronize(ptr(stream)))
    assert read(one, len(text)) == text[::-1]
    # By one address space, without saying which device is which.
    write(one, text)
    ok(rt.cudaMemcpy(ptr(other), ptr(one), size(len(text)), 4))
    assert read(other, len(text)) == text
    gives(INVALID_DEVICE, rt.cudaMemcpyPeer(ptr(other), COUNT, ptr(one), 0, size(1)))
    rt.cudaGetLastError()


def streams():
    """Each device's default streams are its own: what the first device waits for, the second does not."""
    ok(rt.cudaSetDevice(1))
    module = number(cu.cuModuleLoadData, PTX, kind=ptr)
    spin = number(cu.cuModuleGetFunction, ptr(module), b"spin", kind=ptr)
    flag = number(rt.cudaHostAlloc, size(4096), 0, kind=ptr)
    word = u32.from_address(flag)
    word.value = 0
    target = allocate(4096)
    streams = [number(rt.cudaStreamCreate, kind=ptr)]
    ok(rt.cudaSetDevice(0))
    streams.insert(0, number(rt.cudaStreamCreate, kind=ptr))
    for device, stream in enumerate(streams):
        told = c.c_int()
        ok(rt.cudaStreamGetDevice(ptr(stream), REF(told)))
        assert told.value == device
        context = ptr()
        ok(cu.cuStreamGetCtx(ptr(stream), REF(context)))
        assert context.value == primary(device)
    argument = u64(flag)
    arguments = (ptr * 1)(c.cast(REF(argument), ptr))
    ids = []
    for device in (0, 1):
        ok(rt.cudaSetDevice(device))
        for name in (ptr(0), ptr(1), ptr(2)):
            identity = u64()
            ok(cu.cuStreamGetId(name, REF(identity)))
            ids.append(identity.value)
    assert ids[0] == ids[1] and ids[3] == ids[4] and len(set(ids)) == 4, ids
    # The first device's legacy stream is busy until the flag is set.
    ok(rt.cudaSetDevice(0))
    ok(cu.cuLaunchKernel(ptr(spin), 1, 1, 1, 1, 1, 1, 0, ptr(0), arguments, None))
    ok(cu.cuMemsetD8Async(u64(target), 1, size(64), ptr(streams[0])))
    gives(NOT_READY, rt.cudaStreamQuery(ptr(0)))
    ok(rt.cudaSetDevice(1))
    ok(cu.cuMemsetD8Async(u64(target), 2, size(64), ptr(streams[1])))
    assert read(target, 64) == b"\2" * 64, "by this device's legacy stream, behind its blocking stream"
    ok(rt.cudaStreamSynchronize(ptr(0)))
    ok(rt.cudaDeviceSynchronize())
    ok(cu.cuCtxSynchronize())
    ok(rt.cudaSetDevice(0))
    gives(NOT_READY, rt.cudaStreamQuery(ptr(0)))
    gives(NOT_READY, rt.cudaStreamQuery(ptr(streams[0])))
    rt.cudaGetLastError()
    # An event of one device orders the other's work.
    event = number(rt.cudaEventCreateWithFlags, 2, kind=ptr)
    ok(rt.cudaEventRecord(ptr(event), ptr(streams[0])))
    ok(rt.cudaStreamWaitEvent(ptr(streams[1]), ptr(event), 0))
    ok(cu.cuMemsetD8Async(u64(target), 3, size(64), ptr(streams[1])))
    gives(NOT_READY, rt.cudaStreamQuery(ptr(streams[1])))
    rt.cudaGetLastError()
    done = []
    thread = threading.Thread(target=lambda: done.append(rt.cudaDeviceSynchronize()))
    thread.start()
    time.sleep(0.05)
    assert not done, "of the first device, which every thread begins with"
    word.value = 1
    thread.join()
    ok(rt.cudaSetDevice(1))
    assert done == [0] and read(target, 64) == b"\3" * 64
    synchronous(spin, arguments, word, streams)


def synchronous(spin, arguments, word, streams):
    """What is copied or filled without a stream comes behind what the other device was told, and before what it is told next."""
    ok(rt.cudaSetDevice(0))
    own = allocate(64)
    ok(rt.cudaSetDevice(1))
    other = allocate(64)

    def behind_the_other(value, call):
        # The second device is busy until the flag is set, and then fills its memory.
        word.value = 0
        ok(rt.cudaSetDevice(1))
        ok(cu.cuLaunchKernel(ptr(spin), 1, 1, 1, 1, 1, 1, 0, ptr(0), arguments, None))
        ok(cu.cuMemsetD8Async(u64(other), value, size(64), ptr(streams[1])))
        ok(rt.cudaSetDevice(0))
        timer = threading.Timer(0.05, lambda: setattr(word, "value", 1))
        timer.start()
        told = call()
        timer.join()
        return told

    assert behind_the_other(4, lambda: read(other, 64)) == b"\4" * 64
    ok(behind_the_other(5, lambda: rt.cudaMemcpyPeer(ptr(own), 0, ptr(other), 1, size(64))))
    assert read(own, 64) == b"\5" * 64
    ok(behind_the_other(6, lambda: rt.cudaMemcpy(ptr(other), ptr(own), size(64), 4)))
    assert read(other, 64) == b"\5" * 64
    ok(behind_the_other(7, lambda: rt.cudaMemset(ptr(other), 8, size(64))))
    assert read(other, 64) == b"\10" * 64
    ok(behind_the_other(9, lambda: rt.cudaMemcpy2D(ptr(own), size(8), ptr(other), size(8), size(8), size(8), 4)))
    assert read(own, 64) == b"\11" * 64
    # Before what it is told next, as the first device is busy.
    word.value = 0
    ok(cu.cuMemsetD8Async(u64(own), 1, size(64), ptr(streams[0])))
    ok(cu.cuLaunchKernel(ptr(spin), 1, 1, 1, 1, 1, 1, 0, ptr(0), arguments, None))
    timer = threading.Timer(0.05, lambda: setattr(word, "value", 1))
    timer.start()
    ok(rt.cudaMemcpyPeer(ptr(other), 1, ptr(own), 0, size(64)))
    ok(rt.cudaSetDevice(1))
    ok(cu.cuMemsetD8Async(u64(other), 2, size(32), ptr(streams[1])))
    timer.join()
    assert read(other, 64) == b"\2" * 32 + b"\1" * 32


def code():
    """A library belongs to no device, and its variables to each."""
    ok(rt.cudaSetDevice(0))
    library = number(cu.cuLibraryLoadData, PTX, None, None, 0, None, None, 0, kind=ptr)
    kernel = number(cu.cuLibraryGetKernel, ptr(library), b"bump", kind=ptr)
    addresses, streams = [], []
    for device in (0, 1):
        ok(rt.cudaSetDevice(device))
        address, bytes = u64(), size()
        ok(cu.cuLibraryGetGlobal(REF(address), REF(bytes), ptr(library), b"mark"))
        assert bytes.value == 4 and attribute(9, address.value) == device
        addresses.append(address.value)
        streams.append(number(rt.cudaStreamCreate, kind=ptr))
    assert addresses[0] != addresses[1]
    for device, times in ((0, 1), (1, 3), (0, 1)):
        ok(rt.cudaSetDevice(device))
        for _ in range(times):
            ok(cu.cuLaunchKernel(ptr(kernel), 1, 1, 1, 1, 1, 1, 0, ptr(streams[device]), None, None))
        ok(cu.cuLaunchKernel(ptr(kernel), 1, 1, 1, 1, 1, 1, 0, ptr(0), None, None))
    marks = [int.from_bytes(read(address, 4), "little") for address in addresses]
    assert marks == [4, 4], marks
    ok(rt.cudaSetDevice(1))
    ok(cu.cuKernelSetAttribute(8, 1024, ptr(kernel), 1))
    ok(cu.cuLaunchKernel(ptr(kernel), 1, 1, 1, 1, 1, 1, 1024, ptr(streams[1]), None, None))
    ok(cu.cuCtxSynchronize())
    ok(cu.cuLibraryUnload(ptr(library)))


def visible(seen):
    """What children see, by number and UUID, in which order."""
    uuids = [one for one, _ in seen]
    dashed = ["GPU-" + "-".join((one[:8], one[8:12], one[12:16], one[16:20], one[20:])) for one in uuids]

    def child(value):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": value}
        said = subprocess.check_output([sys.executable, __file__, "seen"], env=environment, text=True, timeout=60)
        return said.strip()

    last = COUNT - 1
    for value, expected in ((f"{last}", [last]), (f"{last},0", [last, 0]), ("0,1", [0, 1]), (f"1,{COUNT},0", [1]), ("1,-1,0", [1]),
                            (dashed[1], [1]), (f"{dashed[last]},{dashed[0][:14]}", [last, 0])):
        assert child(value) == ",".join(uuids[at] for at in expected), value
    for value in ("", "-1", f"{COUNT}", "none", "0,0", "GPU-00000000"):
        assert child(value) == f"error {NO_DEVICE}", value


ok(cu.cuInit(0))
SEEN = names()
visible(SEEN)
nvml(SEEN)
HANDLES = contexts()
memory(HANDLES)
pools()
peers(HANDLES)
streams()
code()
print("devices passed")
