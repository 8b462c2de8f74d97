"""The functions of a crowd: how many fit, and their processes, started as many at a time as there are cores."""

import dataclasses
import os
import queue
import threading

from functions.process import Function, ProgramError
from server import remoted

GIB = 1 << 30

# What a process takes beside its weights on the host: interpreter, PyTorch, staging, and what differs between functions.
PROCESS_BYTES = 0.75 * GIB
# The machine's own, the page cache of the libraries, the server.
RESERVE_BYTES = 6 * GIB
WEIGHTS_BYTES = {"resnet152": 230 << 20, "bert_large_qa": 1274 << 20, "copy_only": 64 << 20}
OTHER_WEIGHTS_BYTES = 170 << 20


@dataclasses.dataclass
class Member:
    """One function and its process."""

    name: str
    model: str
    seed: int
    input_seed: int
    function: Function = None
    first: str = None
    native: str = None
    error: str = None
    is_busy: bool = False


def need_bytes(counts, distinct):
    """Host memory that so many functions of each model take, by estimate: also the weights of those being started."""
    total = RESERVE_BYTES
    for model, count in counts.items():
        weights = WEIGHTS_BYTES.get(model, OTHER_WEIGHTS_BYTES)
        total += count * PROCESS_BYTES + min(count, distinct) * weights + min(count, os.cpu_count()) * weights
    return int(total)


def scaled(counts, distinct, memory_bytes):
    """As many of each as fit, in the same proportions, at least one each."""
    fitting = dict(counts)
    for percent in range(100, 0, -2):
        fitting = {model: max(1, count * percent // 100) for model, count in counts.items()}
        if need_bytes(fitting, distinct) <= memory_bytes:
            break
    return fitting


def make(counts, distinct):
    """The members, largest models first: they take longest to start. Inputs differ between all functions of a model."""
    by_size = sorted(counts, key=lambda model: -WEIGHTS_BYTES.get(model, OTHER_WEIGHTS_BYTES))
    return [Member(f"{model}-{number}", model, number % distinct, number)
            for model in by_size for number in range(counts[model])]


def native_outputs(members, logs, time):
    """Asks one native process of each weight set for the outputs that its functions should have."""
    sets = {}
    for member in members:
        sets.setdefault((member.model, member.seed), []).append(member)
    for (model, seed), same in sets.items():
        if time.is_over():
            break
        with Function(model, logs / f"native.{model}.{seed}.log", seed=seed, deterministic=True) as function:
            function.wait_ready()
            for member in same:
                member.native = function.infer(member.input_seed)["sha256"]


class Start:
    """Starts members in the background. A member is there when its first output is."""

    def __init__(self, members, server, logs, timeout):
        self.waiting = queue.SimpleQueue()
        self.ready = []
        self.stopping = threading.Event()
        for member in members:
            self.waiting.put(member)
        self.threads = [threading.Thread(target=self._work, args=(server, logs, timeout), daemon=True)
                        for _ in range(os.cpu_count())]
        for thread in self.threads:
            thread.start()

    def is_under_way(self):
        return any(thread.is_alive() for thread in self.threads)

    def _work(self, server, logs, timeout):
        while not self.stopping.is_set():
            try:
                member = self.waiting.get_nowait()
            except queue.Empty:
                return
            try:
                member.function = Function(member.model, logs / f"{member.name}.log", remoted(server, member.name),
                                           seed=member.seed, input_seed=member.input_seed, deterministic=True)
                member.function.wait_ready(timeout)
                member.first = member.function.infer(timeout=timeout)["sha256"]
                self.ready.append(member)
            except (ProgramError, OSError) as error:
                member.error = str(error)
                print(f"  {member.name} did not start: {error}", flush=True)
