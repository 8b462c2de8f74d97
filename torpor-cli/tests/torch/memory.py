"""Out of memory is PyTorch's own exception, and the process goes on."""
import torch

free, total = torch.cuda.mem_get_info()
assert 0 < free <= total
held = []
try:
    torch.empty(1 << 45, dtype=torch.uint8, device="cuda")
    raise SystemExit("32 TiB were allocated")
except torch.cuda.OutOfMemoryError as error:
    assert "memory" in str(error)
try:
    while len(held) < 100:
        held.append(torch.empty(total // 8, dtype=torch.uint8, device="cuda"))
    raise SystemExit("more than everything was allocated")
except torch.cuda.OutOfMemoryError:
    assert len(held) >= 7
del held
torch.cuda.empty_cache()
after, _ = torch.cuda.mem_get_info()
assert after >= free - (64 << 20), (free, after)
tensor = torch.arange(1000)
assert torch.equal(tensor.cuda().cpu(), tensor)
for _ in range(50):
    torch.empty(64 << 20, dtype=torch.uint8, device="cuda")
    torch.cuda.empty_cache()
pinned = [torch.empty(5_000_000, dtype=torch.uint8).pin_memory() for _ in range(10)]
del pinned
print("memory passed")
