"""Functions of the program are called in the order of streams: both APIs, every kind of stream, many of them, and waiting."""
import ctypes
import faulthandler
import os
import threading
import time
import torch

faulthandler.dump_traceback_later(60, exit=True)
torch.empty(1, device="cuda")
runtime, driver = ctypes.CDLL(None), ctypes.CDLL("libcuda.so.1")
LAUNCHED = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
LEGACY, PER_THREAD = 1, 2
NOT_READY, NOT_PERMITTED, CAPTURE_UNSUPPORTED = 600, 800, 900
kept, failures = [], []


def guarded(function):
    """What a function of a C library's thread raises is printed, not seen: kept for the end."""
    def call(*arguments):
        try:
            function(*arguments)
        except BaseException as error:
            failures.append(error)
    return call


def launch(stream, function, launcher=runtime.cudaLaunchHostFunc):
    """Calls `function` in the order of the stream."""
    c_function = LAUNCHED(guarded(lambda _: function()))
    kept.append(c_function)
    assert launcher(ctypes.c_void_p(stream), c_function, None) == 0


def add_callback(stream, function, adder=runtime.cudaStreamAddCallback):
    c_function = CALLBACK(guarded(function))
    kept.append(c_function)
    assert adder(ctypes.c_void_p(stream), c_function, ctypes.c_void_p(4711), 0) == 0


def made_stream(flags):
    stream = ctypes.c_void_p()
    assert runtime.cudaStreamCreateWithFlags(ctypes.byref(stream), flags) == 0
    return stream.value


def synchronize(stream):
    assert runtime.cudaStreamSynchronize(ctypes.c_void_p(stream)) == 0


def copy(to, source, stream):
    """Device and pinned memory alone, so that nobody waits."""
    length = ctypes.c_size_t(source.numel() * source.element_size())
    addresses = ctypes.c_void_p(to.data_ptr()), ctypes.c_void_p(source.data_ptr())
    assert runtime.cudaMemcpyAsync(*addresses, length, 4, ctypes.c_void_p(stream)) == 0


def record(event, stream):
    """In stream 0 too, which PyTorch's own streams cannot name."""
    assert runtime.cudaEventRecord(ctypes.c_void_p(event.cuda_event), ctypes.c_void_p(stream)) == 0


class Held:
    """A function in a stream that returns when the block ends."""
    def __init__(self, stream):
        self.stream, self.entered, self.may_go = stream, threading.Event(), threading.Event()

    def __enter__(self):
        def hold():
            self.entered.set()
            assert self.may_go.wait(20)
        launch(self.stream, hold)
        assert self.entered.wait(20)
        return self

    def __exit__(self, *_):
        self.may_go.set()


def while_held(stream, work, seconds):
    """Whether `work`, in a thread, ends while a function is held in the stream; it must end when that does."""
    done = threading.Event()
    thread = threading.Thread(target=lambda: (guarded(work)(), done.set()))
    with Held(stream):
        thread.start()
        ended = done.wait(seconds)
    thread.join(20)
    assert done.is_set()
    return ended


def waits_for(stream, work):
    return not while_held(stream, work, 0.03)


def passes(stream, work):
    return while_held(stream, work, 10)


free, blocking, other_blocking = made_stream(1), made_stream(0), made_stream(0)
names = {0: "null", LEGACY: "legacy", PER_THREAD: "per thread", free: "non-blocking", blocking: "blocking"}
long = torch.arange(4_000_000, dtype=torch.float64)
device, other_device = long.cuda(), torch.zeros(4_000_000, dtype=torch.float64).cuda()
out, back = torch.zeros_like(long).pin_memory(), torch.zeros(4_000_000, dtype=torch.float64).pin_memory()
torch.cuda.synchronize()

# Between a copy that fills what the function reads, and one that reads what it writes.
for stream in names:
    out[-1] = back[-1] = 0
    seen = []

    def function():
        seen.append(out[-1].item())
        time.sleep(0.01)
        back[-1] = 17 + stream
    copy(out, device, stream)
    launch(stream, function)
    copy(other_device, back, stream)
    synchronize(stream)
    assert seen == [3_999_999] and other_device[-1:].cpu()[0] == 17 + stream, (names[stream], seen)

# PyTorch's own copies of pageable memory, up and down, and its events.
with torch.cuda.stream(torch.cuda.ExternalStream(free)):
    place = torch.zeros(8).cuda()
    host, seen = torch.zeros(8), []
    for step in range(20):
        launch(free, lambda: (time.sleep(0.002), seen.append(host[0].item())))
        place.copy_(torch.full((8,), step + 1.0), non_blocking=True)
        assert len(seen) == step + 1, "it comes behind the function"
        host.copy_(place)
    assert seen == list(range(20)) and host[0] == 20

# A function in a blocking stream waits for the legacy stream's work, and the other way round.
for first, second in ((LEGACY, other_blocking), (blocking, 0)):
    out[-1], seen = 0, []
    for source in 8 * [other_device] + [device]:  # so much that it takes longer than calling a function
        copy(out, source, first)
    launch(second, lambda: seen.append(out[-1].item()))
    synchronize(second)
    assert seen == [3_999_999], (first, second)

# Functions of two streams that wait for each other, queued one after the other.
barrier = threading.Barrier(3)
for stream in (free, blocking, other_blocking):
    launch(stream, lambda: barrier.wait(20))
torch.cuda.synchronize()
assert not barrier.broken and not failures, failures

# Who waits for a function that has not returned.
event = torch.cuda.Event()
event.record()
place, spot = torch.zeros(4).cuda(), torch.zeros(4).pin_memory()
driver.cuStreamSynchronize(ctypes.c_void_p(free))
for held, waiting, passing in ((free, (free,), (blocking, 0)), (blocking, (blocking, 0), (other_blocking, free)),
                               (0, (0, blocking, other_blocking), (free,))):
    for stream in waiting:
        assert passes(held, lambda: copy(place, spot, stream)), (names[held], stream)
        assert passes(held, lambda: record(event, stream)), (names[held], stream)
        assert waits_for(held, lambda: (copy(place, spot, stream), synchronize(stream))), (names[held], stream)
    for stream in passing:
        assert passes(held, lambda: copy(place, spot, stream)), (names[held], stream)
        assert passes(held, lambda: synchronize(stream)), (names[held], stream)
    assert waits_for(held, lambda: synchronize(held))
    assert waits_for(held, torch.cuda.synchronize)
# Nobody who waits behind a function holds others up, who copy pageable memory too.
with Held(free):
    waiting = threading.Thread(target=guarded(lambda: torch.cuda.ExternalStream(free).synchronize()))
    def upload():
        with torch.cuda.stream(torch.cuda.ExternalStream(free)):
            place.copy_(torch.full((4,), 5.0))
    uploading = threading.Thread(target=guarded(upload))
    waiting.start(), uploading.start()
    time.sleep(0.05)
    assert torch.equal(torch.arange(1000).cuda().cpu(), torch.arange(1000))
    assert waiting.is_alive() and uploading.is_alive()
waiting.join(20), uploading.join(20)
assert torch.equal(place.cpu(), torch.full((4,), 5.0))

# What is put behind a function is held until it returns, and what waits for an event behind it, and what is destroyed meanwhile.
aside, behind = made_stream(1), made_stream(1)
scratch = torch.zeros(4).pin_memory()
first, second, unmoved = (torch.zeros(4).cuda() for _ in range(3))
for held in (free, blocking, 0):
    spot[0], mark, gone = 1, torch.cuda.Event(), torch.cuda.Event()
    mark.record(), gone.record()
    copy(first, unmoved, 0), copy(second, unmoved, 0)
    torch.cuda.synchronize()
    with Held(held):
        copy(first, spot, held)
        for one in (gone, mark):
            record(one, held)
        assert runtime.cudaStreamWaitEvent(ctypes.c_void_p(behind), ctypes.c_void_p(gone.cuda_event), 0) == 0
        del gone
        copy(second, first, behind)
        torch.cuda.Event().record(torch.cuda.ExternalStream(behind))
        assert not mark.query() and runtime.cudaStreamQuery(ctypes.c_void_p(behind)) == NOT_READY
        spot[0] = 7
        copy(scratch, first, aside)
        synchronize(aside)
        assert scratch[0] == 0, "it is not copied yet"
    synchronize(behind)
    assert first.cpu()[0] == second.cpu()[0] == 7, (names[held], first, second)
    mark.synchronize()
    assert mark.query()

# A function may wait for what the thread that posts behind it does next.
gate = threading.Event()
launch(free, lambda: gate.wait(20))
for number in range(3000):
    copy(place, spot, free)
launch(free, lambda: seen.append("behind"))
gate.set()
synchronize(free)
assert seen[-1] == "behind" and gate.is_set()

# Asking does not wait.
event.record(torch.cuda.ExternalStream(free))
with Held(free):
    assert runtime.cudaStreamQuery(ctypes.c_void_p(free)) == NOT_READY
    assert driver.cuStreamQuery(ctypes.c_void_p(free)) == NOT_READY
    assert driver.cuStreamQuery(ctypes.c_void_p(blocking)) == 0 and driver.cuStreamQuery(None) == 0
    event.synchronize()
    assert event.query(), "it was recorded before"
with Held(blocking):
    assert driver.cuStreamQuery(None) == NOT_READY, "the legacy stream waits for it"
synchronize(0), synchronize(free)
assert runtime.cudaStreamQuery(ctypes.c_void_p(free)) == 0 and driver.cuStreamQuery(None) == 0

# Both functions of both APIs, and their variants.
seen = []
for stream in (0, LEGACY, PER_THREAD, free):
    for adder in (runtime.cudaStreamAddCallback, driver.cuStreamAddCallback):
        add_callback(stream, lambda *arguments: seen.append(arguments), adder)
    synchronize(stream)
    assert seen == 2 * [(stream or None, 0, 4711)], (stream, seen)
    seen.clear()
    for launcher in (runtime.cudaLaunchHostFunc, driver.cuLaunchHostFunc):
        launch(stream, lambda: seen.append(threading.get_native_id()), launcher)
    synchronize(stream)
    assert len(seen) == 2 and threading.get_native_id() not in seen
    seen.clear()
for launcher in (runtime.cudaLaunchHostFunc_ptsz, driver.cuLaunchHostFunc_ptsz):
    launch(0, lambda: seen.append(1), launcher)
for adder in (runtime.cudaStreamAddCallback_ptsz, driver.cuStreamAddCallback_ptsz):
    add_callback(0, lambda stream, *_: seen.append(stream), adder)
synchronize(PER_THREAD)
assert seen == [1, 1, None, None]

# Many, in order, in two streams at once.
seen = {free: [], blocking: []}
for number in range(1000):
    for stream, numbers in seen.items():
        if number == 500:
            copy(place, spot, stream)
        launch(stream, lambda number=number, numbers=numbers: numbers.append(number))
torch.cuda.synchronize()
assert all(numbers == list(range(1000)) for numbers in seen.values())

# What is wrong, and what a function may not do.
nothing = LAUNCHED(lambda _: failures.append("called"))
no_callback = CALLBACK(lambda *_: failures.append("called"))
assert runtime.cudaLaunchHostFunc(None, None, None) == 1 and driver.cuLaunchHostFunc(None, None, None) == 1
assert runtime.cudaStreamAddCallback(None, None, None, 0) == 1
assert driver.cuStreamAddCallback(None, no_callback, None, 1) == 1
assert driver.cuLaunchHostFunc(ctypes.c_void_p(4096), nothing, None) == 400
codes = []
def call_cuda():
    codes.append(runtime.cudaStreamSynchronize(ctypes.c_void_p(free)))
    codes.append(driver.cuStreamQuery(ctypes.c_void_p(free)))
    codes.append(driver.cuCtxSynchronize())
    codes.append(driver.cuLaunchHostFunc(ctypes.c_void_p(free), nothing, None))
    codes.append(driver.cuMemsetD8Async(ctypes.c_uint64(place.data_ptr()), 0, ctypes.c_size_t(4), ctypes.c_void_p(free)))
launch(free, call_cuda)
synchronize(free)
assert codes == 5 * [NOT_PERMITTED], codes

# A capture has no place for callbacks; it is spoilt, and the next one is not.
graph = ctypes.c_void_p()
assert runtime.cudaStreamBeginCapture(ctypes.c_void_p(free), 2) == 0
assert runtime.cudaStreamAddCallback(ctypes.c_void_p(free), no_callback, None, 0) == CAPTURE_UNSUPPORTED
assert runtime.cudaStreamEndCapture(ctypes.c_void_p(free), ctypes.byref(graph)) == 901
assert runtime.cudaGetLastError() != 0

# A graph is launched behind a function; a stream is destroyed behind one, and memory given back.
target = torch.zeros(4).cuda()
assert runtime.cudaStreamBeginCapture(ctypes.c_void_p(free), 2) == 0
copy(target, spot, free)
assert runtime.cudaStreamEndCapture(ctypes.c_void_p(free), ctypes.byref(graph)) == 0
runnable = ctypes.c_void_p()
assert runtime.cudaGraphInstantiate(ctypes.byref(runnable), graph, ctypes.c_uint64(0)) == 0
launch(free, lambda: (time.sleep(0.02), spot.__setitem__(0, 9)))
assert runtime.cudaGraphLaunch(runnable, ctypes.c_void_p(free)) == 0
synchronize(free)
assert target.cpu()[0] == 9
pinned, seen = ctypes.c_void_p(), []
assert runtime.cudaMallocHost(ctypes.byref(pinned), ctypes.c_size_t(4096)) == 0
launch(other_blocking, lambda: (time.sleep(0.05), seen.append(ctypes.c_int.from_address(pinned.value).value)))
assert runtime.cudaFreeHost(pinned) == 0 and len(seen) == 1
launch(other_blocking, lambda: (time.sleep(0.05), seen.append(1)))
assert runtime.cudaStreamDestroy(ctypes.c_void_p(other_blocking)) == 0 and len(seen) == 1
torch.cuda.synchronize()
assert len(seen) == 2

# Threads without functions end, and come again.
def threads():
    return [task for task in os.listdir("/proc/self/task")
            if open(f"/proc/self/task/{task}/comm").read().strip() == "torpor-function"]
with Held(free):
    assert threads()
deadline = time.monotonic() + 10
while threads():
    assert time.monotonic() < deadline, "they stay"
    time.sleep(0.1)
launch(free, lambda: seen.append(3))
synchronize(free)
assert seen[-1] == 3
assert not failures, failures
print("host functions passed")
