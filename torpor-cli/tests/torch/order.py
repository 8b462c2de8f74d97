"""What a stream or an event is known to have done is never said of another one: numbers used again, events recorded again."""
import ctypes
import threading
import time

c = ctypes
driver, P = c.CDLL("libcuda.so.1"), c.c_void_p
NON_BLOCKING, NOT_READY, CAPTURED_EVENT = 1, 600, 907
GATED = b""".version 8.0
.target sm_70
.address_size 64
.visible .entry gated(.param .u64 gate) {
    .reg .u64 %gate; .reg .u32 %word; .reg .pred %closed;
    ld.param.u64 %gate, [gate];
again:
    nanosleep.u32 1000; ld.volatile.global.u32 %word, [%gate]; setp.eq.u32 %closed, %word, 0; @%closed bra again;
    mov.u32 %word, 2; st.volatile.global.u32 [%gate], %word; ret;
}
\0"""


def check(code):
    assert code == 0, code


def made(create, *arguments):
    handle = P()
    check(create(c.byref(handle), *arguments))
    return handle


check(driver.cuInit(0))
context = made(driver.cuDevicePrimaryCtxRetain, 0)
check(driver.cuCtxSetCurrent(context))
kernel = made(driver.cuModuleGetFunction, made(driver.cuModuleLoadData, GATED), b"gated")
gates = c.cast(made(driver.cuMemHostAlloc, c.c_size_t(4096), 0), c.POINTER(c.c_uint32))
next_gate = iter(range(1024))


def new_stream():
    return made(driver.cuStreamCreate, NON_BLOCKING)


class Held:
    """A kernel in a stream, which ends once it may."""
    def __init__(self, stream):
        self.gate = next(next_gate)
        gates[self.gate] = 0
        value = c.c_uint64(c.addressof(gates.contents) + 4 * self.gate)
        check(driver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, (P * 1)(c.addressof(value)), None))

    def release(self):
        gates[self.gate] = 1

    def is_done(self):
        return gates[self.gate] == 2


def in_thread(work):
    """Runs it in another thread; the list has its result when that has ended."""
    result = []

    def run():
        check(driver.cuCtxSetCurrent(context))
        result.append(work())
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, result


place = c.c_uint64()
check(driver.cuMemAlloc_v2(c.byref(place), c.c_size_t(4)))

# A stream is destroyed with work left; the next one has its number, and is done.
event = made(driver.cuEventCreate, 0)
first = new_stream()
left = Held(first)
check(driver.cuEventRecord(event, first))
block, other_block = c.c_uint64(), c.c_uint64()
check(driver.cuMemAllocAsync(c.byref(block), c.c_size_t(1 << 20), first))
check(driver.cuMemFreeAsync(block, first))
check(driver.cuStreamDestroy_v2(first))
second = new_stream()
assert second.value == first.value, "this test is about a number that is used again"
check(driver.cuStreamSynchronize(second))
asked = driver.cuEventQuery(event)
assert asked == NOT_READY, asked
check(driver.cuMemAllocAsync(c.byref(other_block), c.c_size_t(1 << 20), second))
assert other_block.value != block.value, "the destroyed stream's work may still use it"
check(driver.cuMemFreeAsync(other_block, second))
waiting = new_stream()
check(driver.cuStreamWaitEvent(waiting, event, 0))
assert driver.cuStreamQuery(waiting) == NOT_READY
left.release()
check(driver.cuEventSynchronize(event))
assert left.is_done()
check(driver.cuEventQuery(event))
check(driver.cuStreamSynchronize(waiting))

# A thread waits for an event, which is recorded again behind more work: it waits for the record that was the last, and that
# it was reached says nothing of the other one.
early = Held(second)
check(driver.cuEventRecord(event, second))
thread, result = in_thread(lambda: driver.cuEventSynchronize(event))
time.sleep(0.5)
late = Held(second)
check(driver.cuEventRecord(event, second))
early.release()
thread.join(20)
assert result == [0], "it waits for a later record"
assert early.is_done() and not late.is_done()
asked = [driver.cuEventQuery(event), driver.cuStreamQuery(second)]
assert asked == [NOT_READY] * 2, asked
late.release()
check(driver.cuStreamSynchronize(second))
assert late.is_done()

# An identity is never another's, though its number may be: libraries keep things by it.
identities = []
for _ in range(3):
    other, identity = made(driver.cuCtxCreate_v2, 0, 0), c.c_ulonglong()
    check(driver.cuCtxGetId(other, c.byref(identity)))
    check(driver.cuCtxDestroy_v2(other))
    identities.append(identity.value)
assert len(set(identities)) == 3, identities
check(driver.cuCtxSetCurrent(context))

# An event of a capture that has ended is in no order with anything, and a stream does not become part of what is over.
captured = new_stream()
check(driver.cuStreamBeginCapture_v2(captured, 0))
check(driver.cuEventRecord(event, captured))
check(driver.cuStreamEndCapture(captured, c.byref(P())))
assert driver.cuStreamWaitEvent(second, event, 0) == CAPTURED_EVENT
check(driver.cuStreamSynchronize(second))

# Threads end, and with them their default streams, of which there are not so many.

def use_own_stream():
    return driver.cuMemsetD8Async_ptsz(place, 7, c.c_size_t(4), None) or driver.cuStreamSynchronize_ptsz(None)


for _ in range(4200):
    thread, result = in_thread(use_own_stream)
    thread.join()
    assert result == [0], result
print("order passed")
