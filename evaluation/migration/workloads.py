"""Programs to be moved between GPUs, beside those of ../state and ../functions. Each step's answer depends on all before.

    workloads.py graph | triton | ptx | LIBRARY

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


class Ptx:
    """Variables of a module that comes as PTX, by the driver's interface: runs on the simulated GPU, too."""

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
        self.cuda, self.random = ctypes.CDLL("libcuda.so.1"), random.Random(0)
        context, module, self.kernel, self.out = (ctypes.c_void_p() for _ in range(4))
        self.counter, self.factor = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)
        self.call("cuModuleLoadData", ctypes.byref(module), self.TEXT)
        self.call("cuModuleGetFunction", ctypes.byref(self.kernel), module, b"tick")
        for address, name in ((self.counter, b"counter"), (self.factor, b"factor")):
            self.call("cuModuleGetGlobal_v2", ctypes.byref(address), None, module, name)
        self.call("cuMemAlloc_v2", ctypes.byref(self.out), ctypes.c_size_t(4))

    def call(self, name, *arguments):
        error = getattr(self.cuda, name)(*arguments)
        if error:
            raise RuntimeError(f"{name}: CUDA error {error}")

    def step(self):
        factor, result = ctypes.c_uint(self.random.randrange(1 << 32)), (ctypes.c_uint * 3)()
        four = ctypes.c_size_t(4)
        self.call("cuMemcpyHtoD_v2", self.factor, ctypes.byref(factor), four)
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(self.out))
        self.call("cuLaunchKernel", self.kernel, 1, 1, 1, 1, 1, 1, 0, None, parameters, None)
        for place, address in enumerate((self.out, self.counter, self.factor)):
            self.call("cuMemcpyDtoH_v2", ctypes.byref(result, 4 * place), address, four)
        if result[0] != result[1] * factor.value % (1 << 32) or result[2] != factor.value:
            raise RuntimeError(f"{result[0]} is not {result[1]} times {factor.value}")
        return hashlib.sha256(bytes(result)).hexdigest()


if __name__ == "__main__":
    NAME = sys.argv[1]
    WORKLOAD = {"graph": Graph, "triton": Triton, "ptx": Ptx}.get(NAME, lambda: Library(NAME))()
    answering.answer({"step": lambda: {"sha256": WORKLOAD.step()}}, workload=NAME)
