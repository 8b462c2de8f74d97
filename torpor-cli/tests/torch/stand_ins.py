"""A captured memset may have any address: cuDNN captures its launches with stand-ins for addresses, and looks at the nodes alone. The
graph is refused where it is instantiated."""
import faulthandler
from ctypes import byref, c_int, c_size_t, c_ubyte, c_uint64, c_void_p

from driver_calls import begin, call, made
from driver_structures import FillParams

faulthandler.dump_traceback_later(100, exit=True)
INVALID_VALUE, MEMSET_NODE = 1, 2

begin()
device = made("cuMemAlloc_v2", c_size_t(4096), kind=c_uint64)
stream = made("cuStreamCreate", 1)


def clear(address, expected=0):
    call("cuMemsetD8Async", c_uint64(address), c_ubyte(5), c_size_t(4096), stream, expected=expected)


for stand_in in (0x80, 0x7f0000000000):
    clear(stand_in, expected=INVALID_VALUE)
    call("cuStreamBeginCapture_v2", stream, 0)
    clear(stand_in)
    clear(device.value)
    graph = c_void_p()
    call("cuStreamEndCapture", stream, byref(graph))
    nodes, count = (c_void_p * 2)(), c_size_t(2)
    call("cuGraphGetNodes", graph, nodes, byref(count))
    found, kind = [], c_int()
    for node in nodes:
        params = FillParams()
        call("cuGraphNodeGetType", c_void_p(node), byref(kind))
        call("cuGraphMemsetNodeGetParams", c_void_p(node), byref(params))
        assert kind.value == MEMSET_NODE and params.value == 5
        found.append(params.address)
    assert sorted(found) == sorted([stand_in, device.value]), found
    call("cuGraphInstantiateWithFlags", byref(c_void_p()), graph, c_uint64(0), expected=INVALID_VALUE)
    call("cuGraphDestroy", graph)

# The stream is as before.
clear(device.value)
out = (c_ubyte * 16)()
call("cuStreamSynchronize", stream)
call("cuMemcpyDtoH_v2", out, device, c_size_t(16))
assert bytes(out) == bytes([5] * 16)
print("stand-ins passed")
