"""Memory that the program already has becomes reachable for the device, keeps its contents and its address."""
import ctypes
import mmap
import os
import torch

torch.empty(1, device="cuda")
tensor = torch.arange(3_000_000, dtype=torch.float32)
runtime = torch.cuda.cudart()
address, length = tensor.data_ptr(), tensor.numel() * 4
assert runtime.cudaHostRegister(address, length, 0) == runtime.cudaError.success
assert tensor.data_ptr() == address and tensor.is_pinned()
assert torch.equal(tensor, torch.arange(3_000_000, dtype=torch.float32))
on_device = tensor.to("cuda", non_blocking=True)
torch.cuda.synchronize()
tensor.fill_(-1)
tensor.copy_(on_device, non_blocking=True)
torch.cuda.synchronize()
assert torch.equal(tensor, torch.arange(3_000_000, dtype=torch.float32))
driver, runtime_names = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL(None)
assert driver.cuMemHostRegister_v2(ctypes.c_uint64(address), ctypes.c_size_t(length), 0) == 712, "already registered"
assert runtime.cudaHostUnregister(address) == runtime.cudaError.success
assert not tensor.is_pinned()
assert torch.equal(tensor, torch.arange(3_000_000, dtype=torch.float32))
tensor += 1
assert tensor[0] == 1
assert driver.cuMemHostUnregister(ctypes.c_uint64(address)) == 713, "not registered any more"

# Only pages that hold nothing but the registered memory move: the rest of its first and last page is somebody else's.
PAGE = 4096


def check(code):
    assert code == 0, code


heap = mmap.mmap(-1, 8 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
heap[:] = bytes(index // 7 % 251 for index in range(len(heap)))
before = bytes(heap)
base = ctypes.addressof(ctypes.c_char.from_buffer(heap))
start, length = base + 100, 5 * PAGE


def register(address, length):
    return driver.cuMemHostRegister_v2(ctypes.c_uint64(address), ctypes.c_size_t(length), 0)


def shared_pages():
    """Which of the eight are of the memory that is shared with the server."""
    pages = set()
    for line in open("/proc/self/maps"):
        first, last = (int(address, 16) for address in line.split()[0].split("-"))
        if line.split()[1].endswith("s"):
            pages |= {page for page in range(8) if first <= base + page * PAGE < last}
    return pages


check(register(start, length))
assert shared_pages() == {1, 2, 3, 4}, shared_pages()
assert register(start + length - 1, PAGE) == 712 and register(base, 101) == 712, "they overlap"
check(register(start + length, 200))
check(driver.cuMemHostUnregister(ctypes.c_uint64(start + length)))

# Copies reach all of it, whatever part they begin and end in; also rows, and those that other places are at an edge of.
on_device = torch.empty(8 * PAGE, dtype=torch.uint8, device="cuda")
device = on_device.data_ptr()
for offset, bytes_ in (0, length), (0, 50), (PAGE - 200, 150), (3 * PAGE, 2 * PAGE), (PAGE, PAGE):
    size = ctypes.c_size_t(bytes_)
    check(driver.cuMemcpyHtoDAsync_v2(ctypes.c_uint64(device), ctypes.c_uint64(start + offset), size, None))
    torch.cuda.synchronize()
    at = 100 + offset
    assert bytes(on_device[:bytes_].cpu().tolist()) == before[at:at + bytes_], offset
    ctypes.memset(start + offset, 0, bytes_)
    check(driver.cuMemcpyDtoHAsync_v2(ctypes.c_uint64(start + offset), ctypes.c_uint64(device), size, None))
    torch.cuda.synchronize()
    assert heap[:] == before, offset
code = runtime_names.cudaMemcpy2D(ctypes.c_void_p(device), ctypes.c_size_t(700), ctypes.c_void_p(start), ctypes.c_size_t(900),
                                  ctypes.c_size_t(600), ctypes.c_size_t(20), 1)
check(code)
for row in range(20):
    assert bytes(on_device[row * 700:row * 700 + 600].cpu().tolist()) == before[100 + row * 900:100 + row * 900 + 600], row

# Kernels have an address for it (registered_kernels.py is about what they see there), wherever it begins.
place = ctypes.c_uint64()
check(driver.cuMemHostGetDevicePointer_v2(ctypes.byref(place), ctypes.c_uint64(start), 0))
assert place.value % PAGE == start % PAGE
aligned = mmap.mmap(-1, 2 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(aligned))
check(register(address, 2 * PAGE))
check(driver.cuMemHostGetDevicePointer_v2(ctypes.byref(place), ctypes.c_uint64(address + 5), 0))

# What a child of a fork writes is its own.
child = os.fork()
if child == 0:
    same = heap[:] == before
    ctypes.memset(base, 9, 8 * PAGE)
    ctypes.memset(address, 9, 2 * PAGE)
    os._exit(not same)
assert os.waitpid(child, 0)[1] == 0
assert heap[:] == before and aligned[:] == bytes(2 * PAGE)
for registered in start, address:
    check(driver.cuMemHostUnregister(ctypes.c_uint64(registered)))
assert shared_pages() == set() and heap[:] == before

# Memory within one page, and on a stack, stays where it is.
def maps():
    for line in open("/proc/self/maps"):
        first, last = (int(address, 16) for address in line.split()[0].split("-"))
        yield first, last, line.split()[1], line.rstrip()


top = next(last for _, last, _, line in maps() if line.endswith("[stack]"))
check(register(top - 8 * PAGE, 4 * PAGE))
moved = [line for first, last, access, line in maps() if access.endswith("s") and first < top - 4 * PAGE and last > top - 8 * PAGE]
assert not moved, moved
check(driver.cuMemHostUnregister(ctypes.c_uint64(top - 8 * PAGE)))
check(register(base + 5000, 100))
assert shared_pages() == set()
check(driver.cuMemHostUnregister(ctypes.c_uint64(base + 5000)))

# What other processes have, too, stays theirs: copies reach it, kernels do not.
shared = mmap.mmap(-1, 6 * PAGE)
shared[:] = before[:6 * PAGE]
address = ctypes.addressof(ctypes.c_char.from_buffer(shared)) + 100
check(register(address, 5 * PAGE))
assert register(address, PAGE) == 712
assert torch.frombuffer(shared, dtype=torch.uint8, offset=100).is_pinned()
check(driver.cuMemcpyHtoDAsync_v2(ctypes.c_uint64(device), ctypes.c_uint64(address), ctypes.c_size_t(5 * PAGE), None))
torch.cuda.synchronize()
assert bytes(on_device[:5 * PAGE].cpu().tolist()) == before[100:100 + 5 * PAGE]
check(driver.cuMemsetD8_v2(ctypes.c_uint64(device), ctypes.c_ubyte(7), ctypes.c_size_t(PAGE)))
if os.fork() == 0:
    shared[50] = 9
    os._exit(0)
check(driver.cuMemcpyDtoHAsync_v2(ctypes.c_uint64(address), ctypes.c_uint64(device), ctypes.c_size_t(PAGE), None))
torch.cuda.synchronize()
assert os.wait()[1] == 0 and shared[50] == 9, "it is the same memory in the child"
assert shared[100:100 + PAGE] == bytes([7] * PAGE) and shared[100 + PAGE:] == before[100 + PAGE:6 * PAGE]
assert driver.cuMemHostGetDevicePointer_v2(ctypes.byref(place), ctypes.c_uint64(address), 0) == 801
check(driver.cuMemHostUnregister(ctypes.c_uint64(address)))
print("registered passed")
