"""NVML as pynvml calls it: before CUDA, in a server that forks workers which use CUDA, and beside it; it says what CUDA says."""
import ctypes as c
import os
import struct
import sys

nvml, cuda = c.CDLL("libnvidia-ml.so.1"), c.CDLL("libcuda.so.1")
UNINITIALIZED, INVALID, NOT_SUPPORTED, NOT_FOUND, TOO_SMALL, WRONG_VERSION = 1, 2, 3, 6, 7, 25
device = c.c_void_p()


def gives(expected, name, *arguments):
    code = getattr(nvml, name)(*arguments)
    assert code == expected, f"{name} gives {code} instead of {expected} (line {sys._getframe(1).f_lineno})"


def text(name, *arguments):
    place = c.create_string_buffer(96)
    gives(0, name, *arguments, place, 96)
    return place.value.decode()


def number(name, *arguments):
    place = c.c_uint(77)
    gives(0, name, *arguments, c.byref(place))
    return place.value


def memory():
    """Total, free, used."""
    place = (c.c_uint64 * 3)()
    gives(0, "nvmlDeviceGetMemoryInfo", device, place)
    second = c.create_string_buffer(struct.pack("=IxxxxQQQQ", 40 | 2 << 24, 0, 0, 0, 0), 40)
    gives(0, "nvmlDeviceGetMemoryInfo_v2", device, second)
    _, total, reserved, free, used = struct.unpack("=IxxxxQQQQ", second.raw)
    assert total == place[0] and free + used + reserved == total
    return tuple(place)


def ask():
    """All of it, once."""
    gives(0, "nvmlInit_v2")
    assert number("nvmlDeviceGetCount_v2") == 1
    gives(0, "nvmlDeviceGetHandleByIndex_v2", 0, c.byref(device))
    gives(INVALID, "nvmlDeviceGetHandleByIndex_v2", 1, c.byref(c.c_void_p()))
    said = [text("nvmlDeviceGetName", device), text("nvmlDeviceGetUUID", device), text("nvmlSystemGetDriverVersion"),
            text("nvmlSystemGetNVMLVersion"), number("nvmlSystemGetCudaDriverVersion_v2")]
    same = c.c_void_p()
    gives(0, "nvmlDeviceGetHandleByUUID", said[1].encode(), c.byref(same))
    assert same.value == device.value
    gives(NOT_FOUND, "nvmlDeviceGetHandleByUUID", b"GPU-0", c.byref(same))
    bus = c.create_string_buffer(68)
    gives(0, "nvmlDeviceGetPciInfo_v3", device, bus)
    short, domain, at, slot, _, _, long = struct.unpack("=16s5I32s", bus.raw)
    assert short.rstrip(b"\0").decode() == f"{domain:04X}:{at:02X}:{slot:02X}.0"
    gives(0, "nvmlDeviceGetHandleByPciBusId_v2", long.rstrip(b"\0"), c.byref(same))
    more = c.create_string_buffer(struct.pack("=I60x", 64 | 1 << 24), 64)
    gives(0, "nvmlDeviceGetPciInfoExt", device, more)
    assert struct.unpack("=8I32s", more.raw)[1:4] == (domain, at, slot) and more.raw[32:] == long
    wanted = c.create_string_buffer(struct.pack("=II44s", 52 | 1 << 24, 1, said[1].encode()), 52)
    same = c.c_void_p()
    gives(0, "nvmlDeviceGetHandleByUUIDV", wanted, c.byref(same))
    assert same.value == device.value
    major, minor = c.c_int(), c.c_int()
    gives(0, "nvmlDeviceGetCudaComputeCapability", device, c.byref(major), c.byref(minor))
    said += [(domain, at, slot), (major.value, minor.value), memory()[0]]
    assert number("nvmlDeviceGetIndex", device) == number("nvmlDeviceGetComputeMode", device) == 0
    assert number("nvmlDeviceGetClockInfo", device, 1) > 0
    current, pending = c.c_uint(), c.c_uint()
    gives(0, "nvmlDeviceGetMigMode", device, c.byref(current), c.byref(pending))
    assert 0 < number("nvmlDeviceGetTemperature", device, 0) < 120
    gives(INVALID, "nvmlDeviceGetTemperature", device, 1, c.byref(current))
    assert 0 < number("nvmlDeviceGetPowerUsage", device) < number("nvmlDeviceGetEnforcedPowerLimit", device)
    # The simulated machine does not tell its load, nor how fast its fans turn.
    gives(NOT_SUPPORTED, "nvmlDeviceGetUtilizationRates", device, c.byref(c.c_uint64()))
    gives(NOT_SUPPORTED, "nvmlDeviceGetFanSpeed", device, c.byref(current))
    gives(WRONG_VERSION, "nvmlDeviceGetMemoryInfo_v2", device, c.create_string_buffer(40))
    for which in ("Curr", "Max"):
        link = [number(f"nvmlDeviceGet{which}PcieLink{what}", device) for what in ("Generation", "Width")]
        assert link == [5, 16], "of the simulated machine"
    cpus, nodes = (c.c_uint64 * 16)(), (c.c_uint64 * 16)()
    gives(0, "nvmlDeviceGetCpuAffinity", device, 16, cpus)
    assert {at for at in range(1024) if cpus[at // 64] >> at % 64 & 1} == os.sched_getaffinity(0)
    gives(INVALID, "nvmlDeviceGetCpuAffinity", device, 0, cpus)
    gives(0, "nvmlDeviceGetMemoryAffinity", device, 16, nodes, 0)
    assert any(nodes)
    gives(INVALID, "nvmlDeviceGetMemoryAffinity", device, 16, nodes, 2)
    branch = c.create_string_buffer(struct.pack("=I", 84 | 1 << 24), 84)
    gives(0, "nvmlSystemGetDriverBranch", branch, 80)
    assert branch.raw[4:].rstrip(b"\0").decode() == f"r{said[2].split('.')[0]}_00"
    assert number("nvmlDeviceGetC2cModeInfoV", device) == number("nvmlGetExcludedDeviceCount") == 0
    fabric = c.create_string_buffer(b"\x77" * 40, 41)
    gives(0, "nvmlDeviceGetGpuFabricInfo", device, fabric)
    assert fabric.raw == bytes(28) + b"\x77" * 12 + b"\0"
    for version, length in ((2, 36), (3, 40)):
        fabric = c.create_string_buffer(struct.pack("=I", length | version << 24) + b"\x77" * 36, 41)
        gives(0, "nvmlDeviceGetGpuFabricInfoV", device, fabric)
        assert fabric.raw[4:] == bytes(length - 4) + b"\x77" * (40 - length) + b"\0"
    gives(WRONG_VERSION, "nvmlDeviceGetGpuFabricInfoV", device, c.create_string_buffer(28))
    gives(NOT_SUPPORTED, "nvmlDeviceGetDriverModel_v2", device, c.byref(current), c.byref(pending))
    gives(NOT_SUPPORTED, "nvmlVgpuTypeGetLicense", 1, c.byref(current), 4)
    gives(TOO_SMALL, "nvmlDeviceGetName", device, c.create_string_buffer(2), 2)
    gives(0, "nvmlShutdown")
    if "torch" not in sys.modules:  # which uses NVML, too
        gives(UNINITIALIZED, "nvmlDeviceGetCount_v2", c.byref(current))
        gives(UNINITIALIZED, "nvmlShutdown")
    return said


def of_cuda():
    """What CUDA says of the same, in a process that uses it."""
    assert cuda.cuInit(0) == 0, "a child of a process that asked NVML alone"
    import torch
    seen = torch.cuda.get_device_properties(0)
    driver = c.c_int()
    assert cuda.cuDriverGetVersion(c.byref(driver)) == 0
    name, uuid, _, _, version, place, capability, total = ask()
    assert (name, uuid) == (seen.name, f"GPU-{seen.uuid}") and version >= driver.value
    assert place == (seen.pci_domain_id, seen.pci_bus_id, seen.pci_device_id)
    assert capability == (seen.major, seen.minor) and total == seen.total_memory
    held = torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
    gives(0, "nvmlInit_v2")
    free, whole = torch.cuda.mem_get_info()
    assert memory() == (whole, free, whole - free) and whole - free >= held.numel()
    count, process = c.c_uint(0), c.create_string_buffer(24)
    gives(TOO_SMALL, "nvmlDeviceGetComputeRunningProcesses_v3", device, c.byref(count), None)
    gives(0, "nvmlDeviceGetComputeRunningProcesses_v3", device, c.byref(count), process)
    assert struct.unpack("=IxxxxQII", process.raw)[:2] == (os.getpid(), whole - free) and count.value == 1


gives(UNINITIALIZED, "nvmlDeviceGetCount_v2", c.byref(c.c_uint()))
before = ask()
assert ask() == before
for _ in range(2):
    child = os.fork()
    if child == 0:
        try:
            of_cuda()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
of_cuda()
child = os.fork()
if child == 0:
    # As natively, NVML goes on where CUDA does not.
    os._exit(0 if ask() == before and cuda.cuInit(0) == 3 else 1)
assert os.waitpid(child, 0)[1] == 0
nvml.nvmlErrorString.restype = c.c_char_p
assert nvml.nvmlErrorString(NOT_FOUND) == b"A query to find an object was unsuccessful"
print("nvml passed")
