"""Programs to be moved between GPUs, beside those of ../state and ../functions. Each step's answer depends on all before.

    workloads.py graph | triton | ptx | arrays | LIBRARY

LIBRARY is variables.cu, compiled. A step (the command `step` of ../functions/answering.py) gives the sha256 of what it
computed and of the state.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "functions"), str(HERE.parent / "mixed")]
import answering  # noqa: E402 (first of all that may print)
import ctypes  # noqa: E402
import hashlib  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402

os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"


def digest(*tensors):
    """Of tensors on the GPU, in this order."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


class Graph:
    """A captured graph whose input is what its last replay left."""

    def __init__(self):
        import torch
        torch.manual_seed(0)
        self.torch = torch
        model = torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.GELU(), torch.nn.Linear(2048, 512)).to("cuda")
        self.input, self.state = torch.zeros(8, 512, device="cuda"), torch.zeros(8, 512, device="cuda")
        with torch.no_grad():
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for _ in range(3):
                    model(self.input + self.state)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.output = model(self.input + self.state)
                self.state.copy_(self.output)

    def step(self):
        self.input.copy_(self.torch.randn(8, 512))
        self.graph.replay()
        return digest(self.output, self.state)


class Triton:
    """A kernel that Triton compiled, over data that stays."""

    def __init__(self):
        import torch
        import triton_kernel
        self.launch, self.data = triton_kernel.launch, torch.zeros(100_000, device="cuda")

    def step(self):
        self.launch(self.data)
        self.data.mul_(0.75)
        return digest(self.data)


class Library:
    """Variables of CUDA C++ (variables.cu)."""

    def __init__(self, path):
        self.library, self.random = ctypes.CDLL(path), random.Random(0)

    def step(self):
        result = (ctypes.c_uint * 2050)()
        error = self.library.variables_step(self.random.randrange(1 << 32), result)
        if error:
            raise RuntimeError(f"CUDA error {error}")
        return hashlib.sha256(bytes(result)).hexdigest()


class Driver:
    """A program of the driver's interface, with a kernel that comes as PTX: runs on the simulated GPU, too."""

    def __init__(self):
        self.cuda, self.random = ctypes.CDLL("libcuda.so.1"), random.Random(0)
        context, self.module, self.kernel = (ctypes.c_void_p() for _ in range(3))
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)
        self.call("cuModuleLoadData", ctypes.byref(self.module), self.TEXT)
        self.call("cuModuleGetFunction", ctypes.byref(self.kernel), self.module, b"tick")

    def call(self, name, *arguments):
        error = getattr(self.cuda, name)(*arguments)
        if error:
            raise RuntimeError(f"{name}: CUDA error {error}")

    def launch(self, threads, *arguments):
        parameters = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        self.call("cuLaunchKernel", self.kernel, 1, 1, 1, threads, 1, 1, 0, None, parameters, None)


class Arrays(Driver):
    """An array whose elements a kernel reads through a texture and writes through a surface, and arrays with layers and levels. All of
    them, and their handles, stay from step to step."""

    TEXT = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry tick(.param .u64 texture, .param .u64 surface, .param .u32 seed)
{
    .reg .b32 %r<12>;
    .reg .f32 %f<3>;
    .reg .b64 %d<3>;
    ld.param.u64 %d1, [texture];
    ld.param.u64 %d2, [surface];
    ld.param.u32 %r1, [seed];
    mov.u32 %r2, %tid.x;
    rem.u32 %r3, %r2, 32;
    div.u32 %r4, %r2, 32;
    cvt.rn.f32.u32 %f1, %r3;
    cvt.rn.f32.u32 %f2, %r4;
    add.f32 %f1, %f1, 0f3F000000;
    add.f32 %f2, %f2, 0f3F000000;
    tex.2d.v4.u32.f32 {%r5, %r6, %r7, %r8}, [%d1, {%f1, %f2}];
    mul.lo.u32 %r9, %r5, 1664525;
    add.u32 %r9, %r9, %r1;
    add.u32 %r9, %r9, %r2;
    shl.b32 %r10, %r3, 2;
    sust.b.2d.b32.trap [%d2, {%r10, %r4}], {%r9};
    ret;
}
"""
    WIDTH, HEIGHT, LAYERS = 32, 16, 3

    class Descriptor(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in ("width", "height", "depth")] + [
            (name, ctypes.c_uint) for name in ("format", "channels", "flags")]

    class End(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in ("x", "y", "z", "lod")] + [
            ("kind", ctypes.c_uint), ("host", ctypes.c_void_p), ("device", ctypes.c_uint64), ("array", ctypes.c_void_p),
            ("reserved", ctypes.c_void_p), ("pitch", ctypes.c_size_t), ("height", ctypes.c_size_t)]

    def __init__(self):
        super().__init__()
        words, layered, surface = 3, 1, 2
        self.picture, self.layers, levels = (ctypes.c_void_p() for _ in range(3))
        shape = self.Descriptor(self.WIDTH, self.HEIGHT, 0, words, 1, surface)
        self.call("cuArray3DCreate_v2", ctypes.byref(self.picture), ctypes.byref(shape))
        shape = self.Descriptor(self.WIDTH, self.HEIGHT, self.LAYERS, words, 1, layered)
        self.call("cuArray3DCreate_v2", ctypes.byref(self.layers), ctypes.byref(shape))
        shape = self.Descriptor(self.WIDTH, self.HEIGHT, 0, words, 1, 0)
        self.call("cuMipmappedArrayCreate", ctypes.byref(levels), ctypes.byref(shape), 3)
        self.level = ctypes.c_void_p()
        self.call("cuMipmappedArrayGetLevel", ctypes.byref(self.level), levels, 2)
        # CUDA_RESOURCE_DESC of an array, and CUDA_TEXTURE_DESC of integers.
        resource, sampler = (ctypes.c_uint64 * 18)(0, self.picture.value), (ctypes.c_uint32 * 26)(1, 1, 1, 0, 1)
        self.texture, self.surface = ctypes.c_uint64(), ctypes.c_uint64()
        self.call("cuTexObjectCreate", ctypes.byref(self.texture), resource, sampler, None)
        self.call("cuSurfObjectCreate", ctypes.byref(self.surface), resource)

    def copy(self, array, words, width, height, depth, is_read):
        """All of an array, from or to words of the host."""
        there = self.End(kind=3, array=array)
        here = self.End(kind=1, host=ctypes.addressof(words), pitch=4 * width, height=height)
        ends = (there, here) if is_read else (here, there)
        copy = bytes(ends[0]) + bytes(ends[1]) + bytes((ctypes.c_size_t * 3)(4 * width, height, depth))
        self.call("cuMemcpy3D_v2", ctypes.create_string_buffer(copy, len(copy)))

    def step(self):
        total, shapes = hashlib.sha256(), [
            (self.layers, self.WIDTH, self.HEIGHT, self.LAYERS), (self.level, self.WIDTH // 4, self.HEIGHT // 4, 1),
            (self.picture, self.WIDTH, self.HEIGHT, 1)]
        self.launch(self.WIDTH * self.HEIGHT, self.texture, self.surface, ctypes.c_uint(self.random.randrange(1 << 32)))
        for array, *shape in shapes:
            words = (ctypes.c_uint32 * (shape[0] * shape[1] * shape[2]))()
            self.copy(array, words, *shape, is_read=True)
            total.update(bytes(words))
            if array is not self.picture:
                place = self.random.randrange(len(words))
                words[place] = words[place] * 3 + self.random.randrange(1 << 16)
                self.copy(array, words, *shape, is_read=False)
        return total.hexdigest()


class Ptx(Driver):
    """Variables of a module that comes as PTX."""

    TEXT = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .global .align 4 .u32 counter;
.visible .global .align 8 .u64 place = generic(counter);
.visible .const .align 4 .u32 factor = 5;
.visible .entry tick(.param .u64 out)
{
    .reg .b32 %r<5>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [out];
    cvta.to.global.u64 %d2, %d1;
    atom.global.add.u32 %r1, [counter], 1;
    ld.global.u64 %d3, [place];
    ld.u32 %r2, [%d3];
    ld.const.u32 %r3, [factor];
    mul.lo.u32 %r4, %r2, %r3;
    st.global.u32 [%d2], %r4;
    ret;
}
"""

    def __init__(self):
        super().__init__()
        self.counter, self.factor, self.out = (ctypes.c_void_p() for _ in range(3))
        for address, name in ((self.counter, b"counter"), (self.factor, b"factor")):
            self.call("cuModuleGetGlobal_v2", ctypes.byref(address), None, self.module, name)
        self.call("cuMemAlloc_v2", ctypes.byref(self.out), ctypes.c_size_t(4))

    def step(self):
        factor, result = ctypes.c_uint(self.random.randrange(1 << 32)), (ctypes.c_uint * 3)()
        four = ctypes.c_size_t(4)
        self.call("cuMemcpyHtoD_v2", self.factor, ctypes.byref(factor), four)
        self.launch(1, self.out)
        for place, address in enumerate((self.out, self.counter, self.factor)):
            self.call("cuMemcpyDtoH_v2", ctypes.byref(result, 4 * place), address, four)
        if result[0] != result[1] * factor.value % (1 << 32) or result[2] != factor.value:
            raise RuntimeError(f"{result[0]} is not {result[1]} times {factor.value}")
        return hashlib.sha256(bytes(result)).hexdigest()


if __name__ == "__main__":
    NAME = sys.argv[1]
    WORKLOAD = {"graph": Graph, "triton": Triton, "ptx": Ptx, "arrays": Arrays}.get(NAME, lambda: Library(NAME))()
    answering.answer({"step": lambda: {"sha256": WORKLOAD.step()}}, workload=NAME)
