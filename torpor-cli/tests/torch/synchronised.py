"""Steps in random streams, each synchronised in one of CUDA's ways before the next: every step sees what all before it did."""
import ctypes
import random

import torch

BYTES = 4 << 20
STEPS = 400
TO_DEVICE, FROM_DEVICE, ON_DEVICE = 1, 2, 3

torch.cuda.init()
own = ctypes.CDLL(None)
random.seed(1)


def check(status):
    assert status == 0, status


def new_stream():
    stream = ctypes.c_void_p()
    check(own.cudaStreamCreateWithFlags(ctypes.byref(stream), random.choice((0, 1))))
    return stream


def new_buffer():
    buffer = ctypes.c_void_p()
    check(own.cudaMalloc(ctypes.byref(buffer), ctypes.c_size_t(BYTES)))
    check(own.cudaMemset(buffer, 0, ctypes.c_size_t(BYTES)))
    return buffer


def copy(to, source, kind, stream):
    check(own.cudaMemcpyAsync(to, source, ctypes.c_size_t(BYTES), kind, stream))


def synchronise(stream, event):
    match random.randrange(5):
        case 0 | 1:
            check(own.cudaStreamSynchronize(stream))
        case 2:
            while own.cudaStreamQuery(stream):
                pass
        case 3:
            check(own.cudaEventRecord(event, stream))
            check(own.cudaEventSynchronize(event))
        case 4:
            check(own.cudaDeviceSynchronize())


# The legacy stream, the thread's, and six more.
streams = [ctypes.c_void_p(1), ctypes.c_void_p(2), *(new_stream() for _ in range(6))]
buffers = [new_buffer() for _ in range(4)]
contents = [0] * len(buffers)
event = ctypes.c_void_p()
check(own.cudaEventCreate(ctypes.byref(event)))
pageable, pinned = (ctypes.c_char * BYTES)(), ctypes.c_void_p()
check(own.cudaMallocHost(ctypes.byref(pinned), ctypes.c_size_t(BYTES)))
hosts = [pageable, (ctypes.c_char * BYTES).from_address(pinned.value)]
check(own.cudaDeviceSynchronize())

for step in range(STEPS):
    stream, at, host, found = random.choice(streams), random.randrange(len(buffers)), random.choice(hosts), None
    match random.randrange(6):
        case 0 | 1 | 2:
            contents[at] = step % 251
            ctypes.memset(host, contents[at], BYTES)
            copy(buffers[at], host, TO_DEVICE, stream)
        case 3:
            source = (at + 1) % len(buffers)
            contents[at] = contents[source]
            copy(buffers[at], buffers[source], ON_DEVICE, stream)
        case 4:
            copy(host, buffers[at], FROM_DEVICE, stream)
            found = contents[at]
        case 5:
            place = random.randrange(2, len(streams))
            check(own.cudaStreamDestroy(streams[place]))
            streams[place] = new_stream()
            continue
    synchronise(stream, event)
    assert found is None or host.raw == bytes([found]) * BYTES, (step, at)
    # The program may do with its memory what it likes.
    ctypes.memset(host, 255, BYTES)
print("synchronised passed")
