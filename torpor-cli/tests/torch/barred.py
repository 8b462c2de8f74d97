"""While a blocking stream is captured, the legacy stream is refused and spoils the capture; asking whether it is captured spoils
nothing. Other invalid operations of a capture spoil it, too."""
import faulthandler
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p

from driver_calls import begin, call, made

faulthandler.dump_traceback_later(100, exit=True)
LEGACY = 1
INVALIDATED, UNMATCHED, ISOLATION, IMPLICIT = 901, 903, 905, 906

begin()
device = made("cuMemAlloc_v2", c_size_t(64), kind=c_uint64)
blocking, free, other = (made("cuStreamCreate", flags) for flags in (0, 1, 1))


def fill(stream, expected=0):
    call("cuMemsetD32Async", device, c_uint(7), c_size_t(4), c_void_p(stream), expected=expected)


def is_capturing(stream, expected=0):
    status = c_int(-1)
    call("cuStreamIsCapturing", c_void_p(stream), byref(status), expected=expected)
    return status.value


def end(stream, expected=0):
    graph = c_void_p()
    call("cuStreamEndCapture", stream, byref(graph), expected=expected)
    if graph.value:
        call("cuGraphDestroy", graph)


# Whether it is captured may be asked.
call("cuStreamBeginCapture_v2", blocking, 2)
fill(blocking.value)
assert is_capturing(blocking.value) == 1
is_capturing(LEGACY, expected=IMPLICIT)
is_capturing(None, expected=IMPLICIT)
end(blocking)
assert is_capturing(LEGACY) == 0
fill(LEGACY)

# Work is refused, and spoils the capture.
for refused in (lambda: fill(LEGACY, expected=IMPLICIT), lambda: call("cuStreamSynchronize", c_void_p(LEGACY), expected=IMPLICIT),
                lambda: call("cuStreamQuery", None, expected=IMPLICIT)):
    call("cuStreamBeginCapture_v2", blocking, 2)
    refused()
    assert is_capturing(blocking.value) == 2
    end(blocking, expected=INVALIDATED)
    fill(LEGACY)
    call("cuStreamSynchronize", c_void_p(LEGACY))

# A stream that waits for nobody bars nobody.
call("cuStreamBeginCapture_v2", free, 2)
fill(LEGACY)
assert is_capturing(LEGACY) == 0
end(free)

# One that joins a capture bars like the one that began it, until the capture is over.
event = made("cuEventCreate", 2)
call("cuStreamBeginCapture_v2", free, 2)
call("cuEventRecord", event, free)
call("cuStreamWaitEvent", blocking, event, 0)
is_capturing(LEGACY, expected=IMPLICIT)
call("cuEventRecord", event, blocking)
call("cuStreamWaitEvent", free, event, 0)
end(free)
fill(LEGACY)

# Who joined cannot end it.
call("cuStreamBeginCapture_v2", free, 2)
call("cuEventRecord", event, free)
call("cuStreamWaitEvent", other, event, 0)
end(other, expected=UNMATCHED)
end(free, expected=INVALIDATED)
assert is_capturing(other.value) == 0

# Nothing in it waits for what is outside.
outside = made("cuEventCreate", 2)
call("cuEventRecord", outside, other)
call("cuStreamBeginCapture_v2", free, 2)
call("cuStreamWaitEvent", free, outside, 0, expected=ISOLATION)
end(free, expected=INVALIDATED)
print("barred passed", flush=True)
