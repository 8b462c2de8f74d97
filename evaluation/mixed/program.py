"""Everything at once in one process: SHARED_LIBRARY STATIC_LIBRARY [without-gpu-kernels]

Threads on streams of their own launch, at the same time: kernels of a library loaded after the start and registered by
another thread (against the process's cudart, and with a cudart inside), kernels that Triton compiles, and PyTorch's own. Each
result is a number that is exact in fp32. At the end one stream waits for all others by events and adds up what they made.
With `without-gpu-kernels` Triton and PyTorch's kernels are left out: a simulated GPU cannot run their machine code.
"""

import ctypes
import sys
import threading

import torch

COUNT, STEPS = 100_000, 200
shared_path, static_path, *options = sys.argv[1:]
is_simulated = options == ["without-gpu-kernels"]
failures, results, recorded = [], {}, {}


def load(path):
    """A library, loaded into a process that uses CUDA already."""
    library = ctypes.CDLL(path)
    library.extension_set_step.argtypes = [ctypes.c_float]
    library.extension_add.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_void_p]
    return library


def launches(library):
    """Steps of 1 + 2 and what the library adds."""
    def step(data, stream):
        code = library.extension_add(data.data_ptr(), COUNT, 2.0, stream.cuda_stream)
        assert code == 0, f"extension_add gives {code}"
    return step


def work(name, step, each):
    """One thread: many steps on a stream of its own, checked on the host."""
    try:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            data = torch.zeros(COUNT).cuda()
            for _ in range(STEPS):
                step(data, stream)
            event = torch.cuda.Event()
            event.record()
            host = data.cpu()
        assert torch.equal(host, torch.full((COUNT,), float(each * STEPS))), f"{name}: {host[:4]}, not {each * STEPS}"
        results[name], recorded[name] = data, event
    except Exception as error:  # whatever it is, the main thread tells
        failures.append(f"{name}: {error!r}")


def main():
    torch.empty(1, device="cuda")
    shared, static = load(shared_path), load(static_path)
    assert shared.extension_set_step(1.0) == 0 and static.extension_set_step(1.0) == 0
    torch.cuda.synchronize()  # a copy from pageable memory may end after its call, and the streams below do not wait for it
    jobs = [("shared cudart", launches(shared), 13), ("static cudart", launches(static), 23),
            ("shared cudart, second thread", launches(shared), 13), ("static cudart, second thread", launches(static), 23)]
    if not is_simulated:
        import triton_kernel
        jobs += [("triton", lambda data, _: triton_kernel.launch(data), 7), ("pytorch", lambda data, _: data.add_(3.0), 3)]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures, failures
    # One stream after all others; then, from this thread, both libraries on the same data.
    last = torch.cuda.Stream()
    with torch.cuda.stream(last):
        for event in recorded.values():
            last.wait_event(event)
        total = torch.zeros(COUNT).cuda()
        for data in results.values():
            total = data.clone() if is_simulated else total + data
        launches(shared)(total, last)
        launches(static)(total, last)
        host = total.cpu()
    expected = (jobs[-1][2] if is_simulated else sum(each for _, _, each in jobs)) * STEPS + 13 + 23
    # Threads end in any order, and over the simulated GPU the last one's data are what is left.
    allowed = {each * STEPS + 36 for _, _, each in jobs} if is_simulated else {expected}
    assert host[0].item() in allowed and torch.equal(host, host[0].expand(COUNT)), (host[:4], allowed)
    print(f"mixed passed: {', '.join(name for name, _, _ in jobs)}")


if __name__ == "__main__":
    main()
