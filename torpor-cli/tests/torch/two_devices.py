"""PyTorch with two devices in one process: tensors that go from one to the other, streams and events of both, and a module that is
split. Kernels of PyTorch are skipped where the GPU is simulated, so what is looked at are copies."""
import torch

assert torch.cuda.device_count() == 2
ONE, TWO = torch.device("cuda:0"), torch.device("cuda:1")
names = [torch.cuda.get_device_properties(device) for device in (ONE, TWO)]
assert names[0].uuid != names[1].uuid and names[0].name == names[1].name
assert torch.cuda.can_device_access_peer(ONE, TWO)

values = torch.arange(1 << 20, dtype=torch.int32)
there = values.to(TWO)
assert there.device == TWO and torch.equal(there.cpu(), values)
back = there.to(ONE)
assert back.device == ONE and torch.equal(back.cpu(), values)
with torch.cuda.device(TWO):
    assert torch.cuda.current_device() == 1 and torch.empty(3, device="cuda").device == TWO
    side = torch.cuda.Stream()
    assert side.device == TWO
assert torch.cuda.current_device() == 0
assert torch.cuda.default_stream(ONE) != torch.cuda.default_stream(TWO)

# A copy on a stream of the second device, which the first one's stream waits for.
pinned = values.flip(0).contiguous().pin_memory()
with torch.cuda.stream(side):
    there.copy_(pinned, non_blocking=True)
    mark = side.record_event()
torch.cuda.current_stream(ONE).wait_event(mark)
back.copy_(there, non_blocking=True)
torch.cuda.synchronize(ONE)
assert torch.equal(back.cpu(), pinned)
torch.cuda.synchronize(TWO)

# Memory is counted for each device.
before = [torch.cuda.memory_allocated(device) for device in (ONE, TWO)]
more = torch.empty(32 << 20, dtype=torch.uint8, device=TWO)
assert torch.cuda.memory_allocated(ONE) == before[0] and torch.cuda.memory_allocated(TWO) >= before[1] + (32 << 20)
free, total = torch.cuda.mem_get_info(TWO)
assert 0 < free < total

model = torch.nn.Sequential(torch.nn.Linear(64, 64).to(ONE), torch.nn.Linear(64, 64).to(TWO))
assert [part.weight.device for part in model] == [ONE, TWO]
model[1](model[0](torch.rand(8, 64, device=ONE)).to(TWO)).sum().backward()
assert all(part.weight.grad.device == part.weight.device for part in model)
torch.cuda.synchronize(TWO)
print("two devices passed")
