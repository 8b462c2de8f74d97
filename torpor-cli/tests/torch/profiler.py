"""torch.profiler sees what is on the GPU: kernels, copies and fills, each with the call and the operator that it comes from."""
import ctypes
import json
import os
import tempfile

import torch
from torch.profiler import ProfilerActivity, profile, record_function

BOTH = [ProfilerActivity.CPU, ProfilerActivity.CUDA]


def traced(step, **options):
    with profile(activities=BOTH, **options) as profiler:
        step()
        torch.cuda.synchronize()
    path = os.path.join(tempfile.mkdtemp(), "trace.json")
    profiler.export_chrome_trace(path)
    with open(path) as file:
        return profiler, json.load(file)["traceEvents"]


def of(events, category):
    found = [event for event in events if event.get("cat") == category]
    return sorted(found, key=lambda event: event["ts"])


values = torch.arange(1000, dtype=torch.float32, pin_memory=True)
stream = torch.cuda.Stream()


def step():
    with record_function("step"):
        a = values.to("cuda", non_blocking=True)
        b = torch.zeros(1000, device="cuda")
        for _ in range(3):
            a.add_(b).relu_()
        with torch.cuda.stream(stream):
            stream.wait_stream(torch.cuda.default_stream())
            c = a.exp()
        torch.cuda.synchronize()
        return c.cpu()


step()
profiler, events = traced(step)
kernels, copies = of(events, "kernel"), of(events, "gpu_memcpy")
names = [kernel["name"] for kernel in kernels]
print(names)
relus = [index for index, name in enumerate(names) if "clamp" in name or "relu" in name.lower()]
exps = [index for index, name in enumerate(names) if "exp_kernel" in name]
adds = [index for index, name in enumerate(names) if "CUDAFunctor_add" in name or "AddFunctor" in name]
assert len(relus) == len(adds) == 3 and len(exps) == 1, names
assert all(add < relu for add, relu in zip(adds, relus)) and exps[0] > relus[-1], "in the order in which they ran"
assert all(kernel["dur"] > 0 and kernel["args"]["device"] == 0 for kernel in kernels)
for kernel in kernels:
    grid, block = kernel["args"]["grid"], kernel["args"]["block"]
    assert len(grid) == len(block) == 3 and min(grid + block) >= 1 and block[0] > 1, kernel
    assert "registers per thread" in kernel["args"], kernel
streams = [kernel["args"]["stream"] for kernel in kernels]
assert streams[exps[0]] != streams[adds[0]] == 7, "the default stream is 7, as with CUPTI"

# Each was launched by a call, which was made by an operator.
calls = {event["args"]["correlation"]: event for event in of(events, "cuda_runtime") + of(events, "cuda_driver")}
operators = {event["args"]["External id"]: event for event in of(events, "cpu_op")}
for event in kernels + copies:
    call = calls[event["args"]["correlation"]]
    assert call["ts"] <= event["ts"], (call, event)
    assert call["args"]["External id"] == event["args"]["External id"]
assert "Launch" in calls[kernels[exps[0]]["args"]["correlation"]]["name"]
assert operators[kernels[exps[0]]["args"]["External id"]]["name"] == "aten::exp"
assert operators[kernels[relus[0]]["args"]["External id"]]["name"].startswith("aten::")

assert [copy["args"]["bytes"] for copy in copies] == [4000, 4000], copies
assert "HtoD" in copies[0]["name"] and "Pinned" in copies[0]["name"], copies[0]
assert "DtoH" in copies[1]["name"] and "Pageable" in copies[1]["name"], copies[1]
rows = {row.key: row for row in profiler.key_averages()}
assert rows["aten::exp"].device_time_total > 0 and "step" in rows, sorted(rows)

fill = torch.empty(4096, dtype=torch.uint8, device="cuda")
memory, runtime = ctypes.c_void_p(fill.data_ptr()), ctypes.CDLL(None)
_, events = traced(lambda: runtime.cudaMemsetAsync(memory, 7, ctypes.c_size_t(4096), None))
assert [event["args"]["bytes"] for event in of(events, "gpu_memset")] == [4096], events

# A graph is one interval: its nodes are one command.
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    fill.add_(1)
    fill.mul_(2)
_, events = traced(graph.replay)
kernels = of(events, "kernel")
assert [kernel["name"] for kernel in kernels] == ["cudaGraphLaunch (whole graph)"], kernels
assert kernels[0]["dur"] > 0

# Without a profiler again: nothing is kept.
step()
_, events = traced(lambda: None)
assert not of(events, "kernel") and not of(events, "gpu_memcpy"), "from before it began"
print("profiler passed")
