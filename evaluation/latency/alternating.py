"""Two processes of program.py side by side, of which one infers at a time: what the machine does meanwhile, it does to both."""

import json
import pathlib
import statistics
import subprocess
import sys

from measuring import MODELS, PROGRAM

# The first inferences after a pause wake threads, fill caches and raise clocks; they are not counted.
DISCARDED = 2

# What program.py says of each inference.
OF_EACH = ("times_ms", "off_cpu_ms", "yardstick_ms")


class Told:
    """A process that does what it is told."""

    def __init__(self, prefix, log):
        self.command = [*prefix, sys.executable, str(PROGRAM), "told", str(MODELS)]
        self.log = pathlib.Path(log)
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=self.log.open("a"))

    def do(self, *words):
        """Its answer; ends this script if there is none."""
        try:
            print(*words, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line.startswith("{"):
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            sys.exit(f"{' '.join(map(str, self.command))} ended; the end of {self.log}:\n{tail}")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def one_round(ways, models, inferences, block, warm_up, logs):
    """A new process for each way. They infer in turn, `block` inferences at a time. {way: {model: figures}}."""
    processes = {kind: Told(prefix, logs / f"{kind}.log") for kind, prefix in ways.items()}
    figures = {kind: {} for kind in ways}
    for name in models:
        for kind, process in processes.items():
            figures[kind][name] = {**process.do("start", name), **{key: [] for key in OF_EACH}}
            process.do("infer", warm_up)
        for _ in range(0, inferences, block):
            for kind, process in processes.items():
                done = process.do("infer", DISCARDED + block)
                for key in OF_EACH:
                    figures[kind][name][key] += done[key][DISCARDED:]
        for kind, process in processes.items():
            figures[kind][name]["median_ms"] = statistics.median(figures[kind][name]["times_ms"])
            process.do("end")
    for process in processes.values():
        process.end()
    return figures
