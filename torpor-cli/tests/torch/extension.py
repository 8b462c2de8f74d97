"""A CUDA extension that is loaded after the start: all ways of launching, several threads, variables, unloading, loading again."""
import _ctypes
import ctypes
import os
import subprocess
import tempfile
import threading
import torch

torch.empty(1, device="cuda")
with open("/proc/self/maps") as maps:
    cudart = next(line.split()[-1] for line in maps if "libcudart.so.13" in line)
here = os.path.dirname(os.path.abspath(__file__))
folder = tempfile.mkdtemp()
path = os.path.join(folder, "libextension.so")
subprocess.run(
    ["cc", "-shared", "-fPIC", "-O1", "-o", path, os.path.join(here, "extension.c"), cudart,
     "-Wl,-rpath," + os.path.dirname(cudart)],
    check=True,
)
other_path = os.path.join(folder, "libother.so")
subprocess.run(["cp", path, other_path], check=True)


def load(path):
    library = ctypes.CDLL(path)
    library.extension_add.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_void_p]
    library.extension_set_scale.argtypes = [ctypes.c_float]
    library.extension_launches.restype = ctypes.POINTER(ctypes.c_uint)
    return library


def add(library, way, tensor, value):
    stream = torch.cuda.current_stream().cuda_stream
    assert library.extension_add(way, tensor.data_ptr(), tensor.numel(), value, stream) == 0


def zeros(count):
    return torch.zeros(count).cuda()  # without a kernel of PyTorch's, which the simulated GPU cannot run


def check(library, scale):
    value = ctypes.c_float()
    assert library.extension_set_scale(scale) == 0
    assert library.extension_get_scale(ctypes.byref(value)) == 0 and value.value == scale
    for way in range(4):
        tensor = zeros(1000)
        add(library, way, tensor, 1.5)
        add(library, way, tensor, 2.0)
        assert torch.equal(tensor.cpu(), torch.full((1000,), 3.5 * scale)), way


extension = load(path)
check(extension, 2.0)
assert extension.extension_beyond_scale(ctypes.byref(ctypes.c_float())) == 1
address = ctypes.c_void_p()
assert extension.extension_scale_address(ctypes.byref(address)) == 0 and address.value
# The address is good for the driver surface too.
value = ctypes.c_float()
driver = ctypes.CDLL("libcuda.so.1")
assert driver.cuMemcpyDtoH_v2(ctypes.byref(value), address, ctypes.c_size_t(4)) == 0 and value.value == 2.0
attributes = (ctypes.c_uint8 * 144)()
assert extension.extension_attributes(attributes) == 0
assert 0 < int.from_bytes(attributes[24:28], "little") <= 1024
blocks = ctypes.c_int()
assert extension.extension_occupancy(ctypes.byref(blocks)) == 0 and blocks.value > 0
runtime = ctypes.CDLL(None)
# Over the driver surface the real runtime passes on what the driver says.
bad_configuration = 1 if os.environ.get("TORPOR_RUNTIME_SURFACE") == "off" else 9
for what, expected in ((0, bad_configuration), (1, bad_configuration), (2, 1)):
    assert extension.extension_launch_wrongly(what) == expected, what
    assert runtime.cudaPeekAtLastError() == expected and runtime.cudaGetLastError() == expected
    assert runtime.cudaGetLastError() == 0

# A managed variable: the kernel's last launches have been counted, and what the program writes is where it goes on.
launches = extension.extension_launches()
place = ctypes.cast(launches, ctypes.c_void_p).value
torch.cuda.synchronize()
assert launches[0] == 40 + 8, launches[0]
launches[0] = 7
tensor = zeros(10)
add(extension, 0, tensor, 1.0)
torch.cuda.synchronize()
assert launches[0] == 8
assert extension.extension_launches_address(ctypes.byref(address)) == 0 and address.value == place
attributes = (ctypes.c_uint64 * 16)()  # the structure has 88 bytes
assert runtime.cudaPointerGetAttributes(attributes, ctypes.c_void_p(place)) == 0
assert attributes[0] == 3 and attributes[1] == attributes[2] == place, "cudaMemoryTypeManaged"
assert runtime.cudaFree(ctypes.c_void_p(place)) == 1 and runtime.cudaGetLastError() == 1, "it goes with the library"

# Two images with the same kernel and a variable each.
other = load(other_path)
check(other, 3.0)
check(extension, 2.0)

# Kernels registered by one thread, launched by many, on streams of their own; one of them fails meanwhile.
failures = []


def work(number):
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            tensor = torch.zeros(5000, pin_memory=True).to("cuda", non_blocking=True)
            for step in range(50):
                add(extension, (number + step) % 4, tensor, 1.0)
                if number == 0:
                    assert extension.extension_launch_wrongly(0) == bad_configuration
                    assert runtime.cudaGetLastError() == bad_configuration
                else:
                    assert runtime.cudaGetLastError() == 0
            assert torch.equal(tensor.cpu(), torch.full((5000,), 100.0))
    except Exception as error:
        failures.append(error)


threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failures, failures

# Into a graph and out of it. PyTorch's own capture launches a kernel of its own first, which the simulated GPU has not.
tensor = zeros(100)
stream = torch.cuda.Stream()
raw = ctypes.c_void_p(stream.cuda_stream)
graph, runnable, status = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
assert runtime.cudaStreamBeginCapture(raw, 1) == 0
with torch.cuda.stream(stream):
    add(extension, 1, tensor, 1.0)
    add(extension, 2, tensor, 2.0)
assert runtime.cudaStreamIsCapturing(raw, ctypes.byref(status)) == 0 and status.value == 1
assert runtime.cudaStreamEndCapture(raw, ctypes.byref(graph)) == 0
count = ctypes.c_size_t()
assert runtime.cudaGraphGetNodes(graph, None, ctypes.byref(count)) == 0 and count.value == 2
assert runtime.cudaGraphInstantiate(ctypes.byref(runnable), graph, ctypes.c_uint64(0)) == 0
assert torch.equal(tensor.cpu(), torch.zeros(100)), "captured, not run"
assert runtime.cudaGraphLaunch(runnable, raw) == 0
assert runtime.cudaGraphLaunch(runnable, raw) == 0
stream.synchronize()
assert torch.equal(tensor.cpu(), torch.full((100,), 12.0))
assert runtime.cudaGraphExecDestroy(runnable) == 0 and runtime.cudaGraphDestroy(graph) == 0

# Unloaded and loaded again: same code, a fresh variable.
for _ in range(5):
    _ctypes.dlclose(extension._handle)
    assert not any(path in line for line in open("/proc/self/maps")), "still loaded"
    extension = load(path)
    value = ctypes.c_float(-1)
    assert extension.extension_get_scale(ctypes.byref(value)) == 0 and value.value == 0.0
    assert extension.extension_launches()[0] == 40
    check(extension, 5.0)
check(other, 3.0)
print("extension passed")
