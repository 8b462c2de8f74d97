"""PyTorch's profiler, for `run`: what it says was on the GPU, against events, and a trace of some steps of many.

    profiler_workloads.py profiler | profiler_steps
"""

import json
import pathlib
import sys
import tempfile

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

BOTH = [ProfilerActivity.CPU, ProfilerActivity.CUDA]


def profiler():
    # It sees each kernel, in order, for as long as events say; a neighbour's turn between two of them is in the events alone.
    shares = [share_of_kernels() for _ in range(5)]
    assert max(shares) > 0.9 and all(share < 1.02 for share in shares), shares


def share_of_kernels():
    """The time of kernels in a trace, of the time between events around them."""
    a, b = torch.randn(4096, 4096, device="cuda"), torch.randn(4096, 4096, device="cuda")
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    (a @ b).relu_()
    torch.cuda.synchronize()
    with profile(activities=BOTH) as profiled:
        start.record()
        for _ in range(10):
            result = (a @ b).relu_()
        end.record()
        result.cpu()
    kernels = [event for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [event for event in kernels if not event.name.startswith(("Memcpy", "Memset"))]
    kernels.sort(key=lambda event: event.time_range.start)
    names = [event.name for event in kernels]
    assert len(names) == 20 and names[::2] == names[:1] * 10 and names[1::2] == names[1:2] * 10, names
    measured = sum(event.time_range.elapsed_us() for event in kernels)
    print("kernels", round(measured), "us of", round(1000 * start.elapsed_time(end)), "us")
    return measured / (1000 * start.elapsed_time(end))


def profiler_steps():
    """Two steps of six are written down, as training loops do it: each kernel with the call that launched it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)).cuda()
    optimizer, data = torch.optim.SGD(model.parameters(), lr=0.1), torch.randn(32, 256)
    model(data.cuda()).sum().backward()
    traces = []
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "trace.json"

        def keep(profiled):
            averages = profiled.key_averages()
            assert any(average.key == "forward" and average.count == 2 for average in averages)
            assert any(average.key == "aten::addmm" and average.device_time_total > 0 for average in averages)
            profiled.export_chrome_trace(str(file))
            traces.append(json.loads(file.read_text())["traceEvents"])

        with profile(activities=BOTH, schedule=schedule(wait=2, warmup=1, active=2, repeat=1), on_trace_ready=keep) as profiled:
            for _ in range(6):
                optimizer.zero_grad()
                with record_function("forward"):
                    loss = model(data.cuda()).square().mean()
                loss.backward()
                optimizer.step()
                torch.cuda.synchronize()
                profiled.step()
    [trace] = traces
    kernels = [event for event in trace if event.get("cat") == "kernel"]
    launches = {event["args"]["correlation"] for event in trace if event.get("cat") in ("cuda_runtime", "cuda_driver")}
    names = [event["name"] for event in sorted(kernels, key=lambda event: event["ts"])]
    assert len(names) > 10 and names[:len(names) // 2] == names[len(names) // 2:], names
    assert all(event["args"]["correlation"] in launches for event in kernels)
    assert sum(event.get("cat") == "gpu_memcpy" for event in trace) >= 2, "the data of each step"


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    {"profiler": profiler, "profiler_steps": profiler_steps}[sys.argv[1]]()
    print(f"{sys.argv[1]} passed")
