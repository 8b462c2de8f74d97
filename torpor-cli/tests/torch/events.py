"""Events time and order work."""
import ctypes
import torch

first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
pinned = torch.randn(8_000_000).pin_memory()
first.record()
on_device = pinned.to("cuda", non_blocking=True)
last.record()
last.synchronize()
assert first.query() and last.query()
elapsed_ms = first.elapsed_time(last)
assert 0 < elapsed_ms < 60_000, elapsed_ms

side = torch.cuda.Stream()
done = torch.cuda.Event()
with torch.cuda.stream(side):
    other = on_device.clone()
    done.record()
torch.cuda.current_stream().wait_event(done)
assert torch.equal(other.cpu(), pinned)
# Events without end: they are made and destroyed by the million.
for _ in range(5000):
    torch.cuda.Event().record()
torch.cuda.synchronize()
try:
    torch.cuda.Event(enable_timing=True).elapsed_time(last)
    raise SystemExit("an event that was never recorded has a time")
except (ValueError, RuntimeError):
    pass
# A stream's identity is never another's, though its handle may be: libraries keep things by it.
own = ctypes.CDLL(None)
identities = []
for _ in range(3):
    stream, identity = ctypes.c_void_p(), ctypes.c_ulonglong()
    assert own.cudaStreamCreate(ctypes.byref(stream)) == 0
    assert own.cudaStreamGetId(stream, ctypes.byref(identity)) == 0
    assert own.cudaStreamDestroy(stream) == 0
    identities.append(identity.value)
assert len(set(identities)) == 3 and 0 not in identities, identities
print("events passed")
