"""Tensors to the device and back: pageable, pinned, non-blocking, several streams and threads."""
import ctypes
import threading
import torch

assert torch.cuda.is_available()
properties = torch.cuda.get_device_properties(0)
assert "H200" in properties.name and properties.multi_processor_count == 132, properties
assert torch.cuda.device_count() == 1

torch.manual_seed(0)
# Around the sizes where the way changes: nothing, small, one staging chunk, many.
for count in (0, 1, 7, 1000, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 5_000_003):
    tensor = torch.randint(-1000, 1000, (count,), dtype=torch.int32)
    assert torch.equal(tensor.cuda().cpu(), tensor), count
for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.bool, torch.complex64):
    tensor = torch.randn(1000).to(dtype)
    assert torch.equal(tensor.cuda().cpu(), tensor), dtype

pinned = torch.randn(3_000_001).pin_memory()
assert pinned.is_pinned()
on_device = pinned.to("cuda", non_blocking=True)
back = torch.empty_like(pinned, pin_memory=True)
back.copy_(on_device, non_blocking=True)
torch.cuda.synchronize()
assert torch.equal(back, pinned)

# On the device, and by rows with a pitch.
copy = torch.empty_like(on_device)
copy.copy_(on_device)
assert torch.equal(copy.cpu(), pinned)
driver = ctypes.CDLL("libcuda.so.1")
filled = torch.empty(100_000, dtype=torch.uint8, device="cuda")
assert driver.cuMemsetD8_v2(ctypes.c_uint64(filled.data_ptr()), ctypes.c_uint8(7), ctypes.c_size_t(filled.numel())) == 0
assert torch.equal(filled.cpu(), torch.full((100_000,), 7, dtype=torch.uint8))

streams = [torch.cuda.Stream(priority=-1), torch.cuda.Stream()]
pieces = []
for index in range(20):
    with torch.cuda.stream(streams[index % 2]):
        piece = torch.full((100_000,), float(index)).pin_memory()
        pieces.append((piece, piece.to("cuda", non_blocking=True)))
for stream in streams:
    torch.cuda.current_stream().wait_stream(stream)
for piece, there in pieces:
    assert torch.equal(there.cpu(), piece)

failures = []
def work(seed):
    try:
        assert torch.ones(seed + 1).pin_memory().is_pinned()  # in a thread without a context
        generator = torch.Generator().manual_seed(seed)
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(30):
                tensor = torch.randn(int(torch.randint(1, 400_000, (1,), generator=generator)), generator=generator)
                assert torch.equal(tensor.cuda().cpu(), tensor)
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failures, failures
print("tensors passed")
