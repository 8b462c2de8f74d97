"""What was uploaded and synchronised is there for every stream, and for those that other threads make later."""
import ctypes
import queue
import threading

import torch

COUNT = 2_000_000
own = ctypes.CDLL(None)


def through(stream, tensor):
    """A tensor's contents, by two copies in a stream that has no event to wait for."""
    with torch.cuda.stream(stream):
        return tensor.clone().cpu()


def hand_on(numbers, come, go):
    """A thread with a stream of its own: checks what comes, uploads what goes."""
    stream = torch.cuda.Stream()
    for number in numbers:
        expected, tensor = come.get()
        assert torch.equal(through(stream, tensor), expected), number
        data = torch.randn(COUNT // 10)
        with torch.cuda.stream(stream):
            go.put((data, data.cuda()))


side = torch.cuda.Stream()
for _ in range(10):
    data = torch.randn(COUNT)
    assert torch.equal(through(side, data.cuda()), data)

# A stream that is destroyed, and the next one gets its number.
for _ in range(10):
    stream = ctypes.c_void_p()
    assert own.cudaStreamCreateWithFlags(ctypes.byref(stream), 1) == 0
    data, there = torch.randn(COUNT), torch.empty(COUNT, device="cuda")
    torch.cuda.synchronize()
    addresses = ctypes.c_void_p(there.data_ptr()), ctypes.c_void_p(data.data_ptr())
    assert own.cudaMemcpyAsync(*addresses, ctypes.c_size_t(4 * COUNT), 1, stream) == 0
    assert own.cudaStreamSynchronize(stream) == 0
    assert own.cudaStreamQuery(stream) == 0
    assert own.cudaStreamDestroy(stream) == 0
    assert torch.equal(through(side, there), data)

# More streams than may answer their synchronisations early.
queues = [queue.Queue() for _ in range(8)]
failed = []
threading.excepthook = lambda arguments: failed.append(arguments.exc_value)
threads = [threading.Thread(target=hand_on, args=(range(10), come, go)) for come, go in zip(queues, queues[1:])]
for thread in threads:
    thread.start()
for _ in range(10):
    data = torch.randn(COUNT // 10)
    queues[0].put((data, data.cuda()))
while any(thread.is_alive() for thread in threads) and not failed:
    threads[-1].join(1)
assert not failed, failed
for _ in range(10):
    expected, tensor = queues[-1].get()
    assert torch.equal(through(side, tensor), expected)

some = (ctypes.c_char * 4)()
# An upload to a blocking stream comes behind the legacy stream's work, and so does who synchronises with it.
pinned, stream = torch.zeros(COUNT).pin_memory(), ctypes.c_void_p()
assert own.cudaStreamCreate(ctypes.byref(stream)) == 0
for number in range(1, 11):
    there = torch.full((COUNT,), float(number)).cuda()
    pinned.copy_(there, non_blocking=True)
    assert own.cudaMemcpyAsync(ctypes.c_void_p(there.data_ptr()), some, ctypes.c_size_t(4), 1, stream) == 0
    assert own.cudaStreamSynchronize(stream) == 0
    assert pinned[-1].item() == number

# What was not allocated is told by the synchronisation at the latest.
address = ctypes.c_void_p(there.data_ptr() + (1 << 40))
copied = own.cudaMemcpyAsync(address, some, ctypes.c_size_t(4), 1, None)
assert copied or own.cudaStreamSynchronize(None)
print("uploads passed")
