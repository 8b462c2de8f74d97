"""Graphs that copy more pageable memory, one after the other, than the process may have page-locked at once: each has the room of
the one before when that is over, and one that is too large is out of memory."""
import faulthandler
from ctypes import byref, c_char, c_size_t, c_uint64, c_void_p

from driver_calls import begin, call, made

faulthandler.dump_traceback_later(100, exit=True)
BYTES = 40 << 20
OUT_OF_MEMORY = 2

begin()
stream = made("cuStreamCreate", 1)
device = made("cuMemAlloc_v2", c_size_t(BYTES), kind=c_uint64)
source, result = (c_char * BYTES)(), (c_char * BYTES)()


def copies(number):
    call("cuStreamBeginCapture_v2", stream, 2)
    for _ in range(number):
        call("cuMemcpyHtoDAsync_v2", device, source, c_size_t(BYTES), stream)
    graph = c_void_p()
    call("cuStreamEndCapture", stream, byref(graph))
    return graph


for turn in range(10):
    graph = copies(1)
    exec = made("cuGraphInstantiateWithFlags", graph, c_uint64(0))
    source[BYTES - 1] = turn
    call("cuGraphLaunch", exec, stream)
    # Not waited for: it still has its staging when the next one wants some.
    call("cuGraphExecDestroy", exec)
    call("cuGraphDestroy", graph)
call("cuStreamSynchronize", stream)
call("cuMemcpyDtoH_v2", result, device, c_size_t(BYTES))
assert result[BYTES - 1] == bytes([turn])
call("cuGraphInstantiateWithFlags", byref(c_void_p()), copies(2), c_uint64(0), expected=OUT_OF_MEMORY)
print("graph staging passed", flush=True)
