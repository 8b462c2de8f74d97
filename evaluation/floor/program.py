"""A native process that infers with launches that cost something and with launches that cost nothing, by turns: MODEL...

Needs free_launches.c preloaded; see run. One line of JSON per model: the medians of each block of inferences, by level.
"""

import ctypes
import json
import pathlib
import statistics
import sys
import time

import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE.parent / "latency"))
import program  # noqa: E402
from measuring import MODELS  # noqa: E402

LEVELS = {"native": 0, "driver": 1, "runtime": 2}
WARM_UP = 20


def main():
    rounds, inferences, *names = sys.argv[1:]
    preloaded = ctypes.CDLL(None)
    preloaded.free_launches_skipped.restype = ctypes.c_long
    for name in names:
        infer, figures = program.started(name, MODELS)
        for _ in range(WARM_UP):
            infer()
        blocks, skipped = {kind: [] for kind in LEVELS}, {}
        for _ in range(int(rounds)):
            for kind, level in LEVELS.items():
                infer()  # the block before is over, and nothing of it is measured here
                torch.cuda.synchronize()
                preloaded.free_launches(level)
                before, times = preloaded.free_launches_skipped(), []
                for _ in range(int(inferences)):
                    begin = time.perf_counter()
                    infer()
                    times.append((time.perf_counter() - begin) * 1e3)
                preloaded.free_launches(0)
                skipped[kind] = (preloaded.free_launches_skipped() - before) / int(inferences)
                blocks[kind].append(statistics.median(times))
        print(json.dumps({"model": name, "blocks_ms": blocks, "skipped": skipped,
                          "rel_err_vs_cpu": figures["rel_err_vs_cpu"]}), flush=True)
        del infer
        torch.cuda.empty_cache()


if __name__ == "__main__":
    with torch.no_grad():
        main()
