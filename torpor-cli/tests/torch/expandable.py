"""PyTorch over expandable segments: an allocator that maps memory as it needs it, in reservations larger than the device."""
import torch
from leaving import away

kept = []
for step in range(1, 9):  # segments that grow, with frees in between
    numbers = torch.arange(step << 20, dtype=torch.float32)
    big = numbers.cuda()
    kept.append((torch.empty(1 << 20, device="cuda").copy_(big[:1 << 20]), torch.full((1000,), float(-step)).cuda()))
    if step % 2 == 0:
        away()
    assert torch.equal(big.cpu(), numbers)
    del big
    if step % 3 == 0:
        torch.cuda.empty_cache()
        away()
for step, (few, small) in enumerate(kept, 1):
    assert torch.equal(few.cpu(), torch.arange(1 << 20, dtype=torch.float32))
    assert torch.equal(small.cpu(), torch.full((1000,), float(-step)))
assert any(segment["is_expandable"] for segment in torch.cuda.memory_snapshot()), "expandable segments are not used"

# One tensor over many mappings, copied as a whole while they are on their way.
wide, other = (torch.empty(20 << 20, device="cuda") for _ in range(2))
for value in range(1, 6):
    numbers = torch.arange(20 << 20, dtype=torch.float32) * value
    wide.copy_(numbers)
    away()
    other.copy_(wide)
    assert torch.equal(other.cpu(), numbers)

try:
    torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    raise SystemExit("more than the device has was given out")
except torch.cuda.OutOfMemoryError:
    pass
del wide, other, kept, few, small
torch.cuda.empty_cache()
assert torch.cuda.memory_reserved() == 0
print("expandable passed")
