"""Two processes of program.py side by side, of which one infers at a time: what the machine does meanwhile, it does to both."""

import contextlib
import os
import statistics
import sys

from functions.process import Program
from measuring import MODELS, PROGRAM

# The first inferences after a pause wake threads, fill caches and raise clocks; they are not counted.
DISCARDED = 2

# For a block of inferences, or a model's start.
PATIENCE_S = 300

# What program.py says of each inference.
OF_EACH = ("times_ms", "off_cpu_ms", "yardstick_ms")


def told(prefix, log):
    """A process that does what it is told, with as many CPU threads as PyTorch takes by itself."""
    program = Program([*prefix, sys.executable, PROGRAM, "told", MODELS], log, {"OMP_NUM_THREADS": str(os.cpu_count())})
    program.wait_ready()
    return program


def one_round(ways, models, inferences, block, warm_up, logs):
    """A new process for each way. They infer in turn, `block` inferences at a time. {way: {model: figures}}."""
    figures = {kind: {} for kind in ways}
    with contextlib.ExitStack() as stack:
        processes = {kind: stack.enter_context(told(prefix, logs / f"{kind}.log")) for kind, prefix in ways.items()}
        for name in models:
            for kind, process in processes.items():
                figures[kind][name] = {**process.ask("start", name, timeout=PATIENCE_S), **{key: [] for key in OF_EACH}}
                process.ask("infer", warm_up, timeout=PATIENCE_S)
            for _ in range(0, inferences, block):
                for kind, process in processes.items():
                    done = process.ask("infer", DISCARDED + block, timeout=PATIENCE_S)
                    for key in OF_EACH:
                        figures[kind][name][key] += done[key][DISCARDED:]
            for kind, process in processes.items():
                figures[kind][name]["median_ms"] = statistics.median(figures[kind][name]["times_ms"])
                process.ask("end")
    return figures
