"""Many functions at once, each a process behind HTTP: native ones, each pinned to a GPU, or clients of a node server
(deployments.py).

A function is named for its model and its number (`resnet152-0007`), as `torpor simulate` names them, so that a trace of one is one of the
other. All functions of a GPU's side come from one process that has imported everything (functions/zygote.py).
"""

import dataclasses
import http.client
import json
import os
import select
import sys
import time

import machine
from functions.process import HERE, Program


@dataclasses.dataclass
class Member:
    """A function and, once it has started, what its process said."""

    name: str
    model: str
    seed: int
    input_seed: int
    slo_ms: int
    gpu: int = 0
    pid: int = None
    port: int = None
    sha256: str = None
    weights_bytes: int = None
    started_ms: float = None
    failed: str = None

    def figures(self):
        """What its process counts: {"requests", "wrong", "busy_s"}; None if it does not answer."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", "/figures", headers={"connection": "close"})
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None


def members(models, count, distinct, slo_ms, gpus=1, stand_in=None):
    """So many functions of the models in turn, on the GPUs in turn, with so many weight sets of each model; no two have one input.
    `slo_ms` is a function of a model's name; `stand_in` is what all run where there is no GPU for their model."""
    named, on = [(number, models[number % len(models)]) for number in range(count)], machine.gpu_numbers(gpus)
    return [Member(f"{model}-{number:04}", stand_in or model, number // len(models) % distinct, number, slo_ms(model), on[number % gpus])
            for number, model in named]


class Zygote(Program):
    """The process that the functions come from, and the functions."""

    def __init__(self, models, logs, name, prefix=()):
        self.logs = logs / name
        self.logs.mkdir(parents=True, exist_ok=True)
        super().__init__([*prefix, sys.executable, HERE / "zygote.py", *dict.fromkeys(models)], logs / f"{name}.log")

    def start(self, wanted, seconds, environment=lambda member: {}):
        """Starts functions, as many at a time as there are cores; gives those that answered. `environment` is a child's own."""
        deadline, waiting, under_way, started = time.monotonic() + seconds, list(wanted), {}, []
        told = time.monotonic()
        while (waiting or under_way) and time.monotonic() < deadline:
            while waiting and len(under_way) < max(2, os.cpu_count()):
                member = waiting.pop(0)
                under_way[member.name] = member
                self.order(member, environment(member))
            if not self._is_heard(deadline):
                break
            said = self._receive(1)
            member = under_way.pop(said.pop("name"))
            for key, value in said.items():
                setattr(member, key, value)
            if member.failed:
                print(f"  {member.name} did not start: {member.failed}", flush=True)
            else:
                started.append(member)
            if time.monotonic() - told >= 10:
                told = time.monotonic()
                print(f"  {len(started)} of {len(wanted)} functions have started", flush=True)
        for member in (*under_way.values(), *waiting):
            member.failed = f"not within {seconds:.0f} s; see {self.logs / member.name}.log"
        print(f"  {len(started)} of {len(wanted)} functions have started", flush=True)
        return started

    def order(self, member, environment):
        """Has a function started, without waiting; a line will say what became of it."""
        order = {"name": member.name, "model": member.model, "seed": member.seed, "input_seed": member.input_seed,
                 "environment": environment, "log": str(self.logs / f"{member.name}.log")}
        self.process.stdin.write((json.dumps(order) + "\n").encode())

    def heard(self):
        """The lines that have come, of which there is something."""
        received = os.read(self.process.stdout.fileno(), 1 << 16)
        if not received:
            raise self._failure("has ended")
        *lines, self.buffer = (self.buffer + received).split(b"\n")
        return [json.loads(line) for line in lines]

    def _is_heard(self, deadline):
        """Whether a line has come before the deadline."""
        if b"\n" in self.buffer:
            return True
        left = max(0, deadline - time.monotonic())
        return bool(select.select([self.process.stdout], [], [], left)[0])
