"""A process whose steady state is looked at from outside: MODEL, INFERENCES; see run, which starts it.

Prints "ready PID" when warm and waits for a line; then infers between marks, prints what it knows of its memory as JSON, and
ends. The marks: cuProfilerStart and cuProfilerStop, which the shim's log names, and getppid(2), which nobody else calls.
"""

import ctypes
import json
import os
import pathlib
import sys

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE.parent / "latency"))
import program  # noqa: E402
from measuring import MODELS  # noqa: E402

LIBRARY = "libtorpor_intercept.so"


def mappings():
    """Of this process: (begin, end, name, resident bytes)."""
    found = []
    for line in pathlib.Path("/proc/self/smaps").read_text().splitlines():
        words = line.split(None, 5)
        if words[0].endswith(":"):
            if words[0] == "Rss:":
                found[-1][3] = int(words[1]) << 10
        else:
            begin, end = (int(word, 16) for word in words[0].split("-"))
            found.append([begin, end, words[5] if len(words) > 5 else "", 0])
    return found


def memory():
    """Resident bytes that are there because of the shim, by what they are."""
    parts = {"library": 0, "channel": 0, "heap": 0, "heap_peak": 0, "host_range": 0}
    end_of_library = None
    for begin, end, name, resident in mappings():
        if LIBRARY in name or (not name and begin == end_of_library):  # the latter is the library's .bss
            parts["library"] += resident
            end_of_library = end
        elif "memfd:torpor-channel" in name:
            parts["channel"] += resident
        elif "memfd:torpor" in name:
            parts["host_range"] += resident
    everything = ctypes.CDLL(None)
    if hasattr(everything, "caller_heap_bytes"):
        for key, function in (("heap", everything.caller_heap_bytes), ("heap_peak", everything.caller_heap_peak_bytes)):
            function.restype = ctypes.c_long
            parts[key] = function()
    return parts


def main():
    name, inferences = sys.argv[1], int(sys.argv[2])
    with torch.no_grad():
        infer, figures = program.started(name, MODELS)
        for _ in range(20):
            infer()
        driver = ctypes.CDLL("libcuda.so.1")
        print("ready", os.getpid(), flush=True)
        sys.stdin.readline()
        driver.cuProfilerStart()
        os.getppid()
        for _ in range(inferences):
            infer()
        os.getppid()
        driver.cuProfilerStop()
    print(json.dumps({"memory": memory(), "rel_err_vs_cpu": figures["rel_err_vs_cpu"]}), flush=True)


if __name__ == "__main__":
    main()
