"""Green contexts, for `run`.

    green_workloads.py green | green_torch | green_torch_time

green: two parts of a GPU with streams of their own, whose kernels pass numbers to each other. green_torch: PyTorch's green contexts; what
is computed in one is what is computed outside. green_torch_time: a product takes longer on 16 multiprocessors than on all.
(`green_contexts` of `run` is torpor-cli/tests/torch/green.py, which also looks on which multiprocessors kernels run.)
"""

import ctypes
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from driver_api import allocate, call, enter, launch, made  # noqa: E402
from linking import KERNEL, PTX, SCRAMBLE, link  # noqa: E402

MULTIPROCESSORS = 1  # CU_DEV_RESOURCE_TYPE_SM
NON_BLOCKING = 1
COUNT, ROUNDS = 1024, 20


class Resource(ctypes.Structure):
    """`CUdevResource`."""

    _fields_ = [("type", ctypes.c_int), ("padding", ctypes.c_ubyte * 92), ("count", ctypes.c_uint), ("rest", ctypes.c_ubyte * 44)]


def parts(device):
    """Two parts of the GPU that have nothing in common: one of at least 8 multiprocessors, and what is left."""
    whole = Resource()
    call("cuDeviceGetDevResource", device, ctypes.byref(whole), MULTIPROCESSORS)
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


def sides_of(device):
    """Two parts of the GPU, in the same state each time."""
    whole, sides = made("cuCtxGetCurrent"), []
    # A kernel of a library is of every context.
    library = made("cuLibraryLoadData", link((PTX, KERNEL), (PTX, SCRAMBLE)), None, None, 0, None, None, 0)
    kernel = made("cuLibraryGetKernel", library, b"advance")
    for number, (context, stream) in enumerate(green_context(device, part) for part in parts(device)):
        call("cuCtxSetCurrent", whole)
        sides.append(Side(context, stream, kernel, number))
    return sides


def green(device):
    sides, expected = sides_of(device), 0
    for number in range(ROUNDS):
        sides[number % 2].advance()
        sides[1 - number % 2].follow(sides[number % 2])
        expected = (expected * 1664525 + 1013904223) * 3 % (1 << 32)
    for side in sides:
        assert side.words() == [expected] * COUNT, (side.words()[0], expected)


def in_context(context, work):
    """What work gives in a green context, whose default stream it has."""
    import torch
    context.set_context()
    try:
        return work()
    finally:
        context.pop_context()
        torch.cuda.synchronize()


def torch_results():
    import torch
    from torch.cuda.green_contexts import GreenContext
    torch.manual_seed(0)
    matrices = [torch.randn(512, 512, device="cuda") for _ in range(4)]

    def work():
        product = matrices[0]
        for matrix in matrices[1:]:
            product = torch.nn.functional.gelu(product @ matrix / 16)
        return product.cpu()

    expected = work()
    for multiprocessors in (8, 16, 64):
        context = GreenContext.create(num_sms=multiprocessors, device_id=0)
        for _ in range(3):
            torch.testing.assert_close(in_context(context, work), expected)
        if hasattr(context, "Stream"):
            stream = context.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                torch.testing.assert_close(work(), expected)
        torch.testing.assert_close(work(), expected)
        del context


def torch_time():
    import torch
    from torch.cuda.green_contexts import GreenContext
    left, right = (torch.randn(4096, 4096, device="cuda") for _ in range(2))

    def seconds():
        import time
        for _ in range(3):
            left @ right
        torch.cuda.synchronize()
        begin = time.monotonic()
        for _ in range(10):
            left @ right
        torch.cuda.synchronize()
        return time.monotonic() - begin

    whole, part = seconds(), in_context(GreenContext.create(num_sms=16, device_id=0), seconds)
    print(f"ten products: {whole * 1000:.1f} ms on all multiprocessors, {part * 1000:.1f} ms on 16", flush=True)
    assert part > 3 * whole, (part, whole)


if __name__ == "__main__":
    {"green": lambda: green(enter()), "green_torch": torch_results, "green_torch_time": torch_time}[sys.argv[1]]()
    print(f"{sys.argv[1]} passed")
