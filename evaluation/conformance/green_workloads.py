"""Green contexts, for `run`: two parts of a GPU with streams of their own, whose kernels pass numbers to each other.

    green_workloads.py green

Who is told that there are none (`CUDA_ERROR_NOT_SUPPORTED`, as Torpor says) goes on with streams of the whole GPU, as programs that
only hope for them do, and has the same results.
"""

import ctypes
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from driver_api import Failed, allocate, call, enter, launch, made  # noqa: E402
from linking import KERNEL, PTX, SCRAMBLE, link  # noqa: E402

NOT_SUPPORTED = 801
MULTIPROCESSORS = 1  # CU_DEV_RESOURCE_TYPE_SM
NON_BLOCKING = 1
COUNT, ROUNDS = 1024, 20


class Resource(ctypes.Structure):
    """`CUdevResource`."""

    _fields_ = [("type", ctypes.c_int), ("padding", ctypes.c_ubyte * 92), ("count", ctypes.c_uint), ("rest", ctypes.c_ubyte * 44)]


def parts(device):
    """Two parts of the GPU that have nothing in common: one of at least 8 multiprocessors, and what is left."""
    whole = made("cuDeviceGetDevResource", device, MULTIPROCESSORS, kind=Resource)
    groups, number, rest = (Resource * 1)(), ctypes.c_uint(1), Resource()
    call("cuDevSmResourceSplitByCount", groups, ctypes.byref(number), ctypes.byref(whole), ctypes.byref(rest), 0, 8)
    assert number.value == 1 and groups[0].count >= 8 and groups[0].count + rest.count <= whole.count
    return groups[0], rest


def green_context(device, resource):
    """A context that has these multiprocessors and no other, and a stream of it."""
    description = made("cuDevResourceGenerateDesc", ctypes.byref(resource), 1)
    default_stream = 1
    green = made("cuGreenCtxCreate", description, device, default_stream)
    got = Resource()
    call("cuGreenCtxGetDevResource", green, ctypes.byref(got), MULTIPROCESSORS)
    assert got.count == resource.count, (got.count, resource.count)
    return made("cuCtxFromGreenCtx", green), made("cuGreenCtxStreamCreate", green, NON_BLOCKING, 0)


def contexts(device):
    """Two contexts, and a stream of each."""
    try:
        return [green_context(device, part) for part in parts(device)]
    except Failed as failed:
        if failed.code != NOT_SUPPORTED:
            raise
        print("green contexts are refused: streams of the whole GPU", flush=True)
        return [(made("cuCtxGetCurrent"), made("cuStreamCreate", NON_BLOCKING)) for _ in range(2)]


class Side:
    """A part of the GPU, with memory of its own."""

    def __init__(self, context, stream, kernel, value):
        self.stream, self.kernel, self.place, self.context = stream, kernel, ctypes.c_uint64(allocate(4 * COUNT)), context
        call("cuMemsetD32_v2", self.place, value, ctypes.c_size_t(COUNT))
        call("cuCtxSynchronize")
        call("cuCtxSetCurrent", context)
        self.event = made("cuEventCreate", 2)

    def advance(self):
        call("cuCtxSetCurrent", self.context)
        launch(self.kernel, 1, COUNT, self.place, stream=self.stream)
        call("cuEventRecord", self.event, self.stream)

    def follow(self, other):
        """Has what the other side has made, behind it."""
        call("cuCtxSetCurrent", self.context)
        call("cuStreamWaitEvent", self.stream, other.event, 0)
        call("cuMemcpyDtoDAsync_v2", self.place, other.place, ctypes.c_size_t(4 * COUNT), self.stream)

    def words(self):
        content = (ctypes.c_uint32 * COUNT)()
        call("cuCtxSetCurrent", self.context)
        call("cuMemcpyDtoHAsync_v2", content, self.place, ctypes.c_size_t(4 * COUNT), self.stream)
        call("cuStreamSynchronize", self.stream)
        return list(content)


def green(device):
    whole = made("cuCtxGetCurrent")
    # A kernel of a library is of every context.
    library = made("cuLibraryLoadData", link((PTX, KERNEL), (PTX, SCRAMBLE)), None, None, 0, None, None, 0)
    kernel = made("cuLibraryGetKernel", library, b"advance")
    sides = []
    for number, (context, stream) in enumerate(contexts(device)):
        call("cuCtxSetCurrent", whole)
        sides.append(Side(context, stream, kernel, number))
    expected = 0
    for number in range(ROUNDS):
        sides[number % 2].advance()
        sides[1 - number % 2].follow(sides[number % 2])
        expected = (expected * 1664525 + 1013904223) * 3 % (1 << 32)
    for side in sides:
        assert side.words() == [expected] * COUNT, (side.words()[0], expected)


if __name__ == "__main__":
    {"green": green}[sys.argv[1]](enter())
    print(f"{sys.argv[1]} passed")
