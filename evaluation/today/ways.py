"""How a program gives its GPU up and comes back: by Torpor, by itself, by the driver, or by ending. Each is used in the same way."""

import json
import subprocess
import sys
import time

from functions.process import HERE as FUNCTIONS
from functions.process import Program
from server import remoted

HERE = FUNCTIONS.parent / "today"
# For a program to start, which for the largest model takes most of a minute.
START_S = 240


class Way:
    """A program that serves a model. Its memory is there, or away."""

    label = "native, always there"

    def __init__(self, name, model, file, context):
        self.name, self.model, self.file, self.context = name, model, file, context
        self.program = None

    def prefix(self):
        return self.context.native

    def start(self):
        """Begins to start it. It is there when `ready` returns."""
        flags = ["--tiny"] if self.context.tiny else []
        self.program = Program([*self.prefix(), sys.executable, HERE / "program.py", "serve", self.model, self.file, *flags],
                               self.context.logs / f"{self.name}.log")

    def ready(self):
        self.program.wait_ready(START_S)

    def infer(self):
        return self.program.ask("infer", timeout=START_S)

    def leave(self):
        """Its memory leaves the GPU. When this returns, others may have the room."""

    def come(self):
        """What an asker has to do before `infer`, if it was away."""

    def weights_bytes(self):
        return self.program.information["weights_bytes"]

    def end(self):
        if self.program:
            self.program.end()
            self.program = None


class Torpor(Way):
    """A function: whoever asks does nothing, and the server decides who leaves."""

    label = "Torpor"

    def prefix(self):
        return remoted(self.context.server, self.name)

    def leave(self):
        self.context.server.unload(self.name)


class Sleep(Way):
    """As vLLM's sleep mode: the program keeps its weights in page-locked memory and copies them back."""

    label = "sleep and wake by the program"

    def leave(self):
        self.program.ask("sleep", timeout=START_S)

    def come(self):
        self.program.ask("wake", timeout=START_S)


class Checkpoint(Way):
    """The driver's process checkpoint, which `cuda-checkpoint` is a command for."""

    label = "process checkpoint"

    def leave(self):
        self._step("out")

    def come(self):
        self._step("back")

    def _step(self, step):
        done = subprocess.run([sys.executable, HERE.parent / "swap" / "checkpoint.py", str(self.program.information["pid"]), step],
                              capture_output=True, text=True, timeout=60, check=False)
        figures = json.loads(done.stdout) if done.stdout else {"error": done.stderr.strip()[-300:]}
        if "error" in figures:
            raise RuntimeError(f"process checkpoint: {figures['error']}")


class Restart(Way):
    """As llama-swap: the process ends, and another is started. The weights' file stays in the page cache."""

    label = "process restart"

    def leave(self):
        self.end()

    def come(self):
        self.start()
        self.ready()


WAYS = {"torpor": Torpor, "sleep": Sleep, "checkpoint": Checkpoint, "restart": Restart}


def timed(work):
    """Milliseconds, and what it gave."""
    begin = time.perf_counter()
    result = work()
    return (time.perf_counter() - begin) * 1e3, result
