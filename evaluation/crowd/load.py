"""Random requests to a crowd, several at a time, and what is seen meanwhile."""

import bisect
import dataclasses
import random
import subprocess
import threading
import time

import machine
from functions.process import ProgramError


@dataclasses.dataclass
class Request:
    """One that was answered, or, for ever in `ms`, was not."""

    at_s: float
    began_us: int  # since 1970
    name: str
    model: str
    ms: float
    is_wrong: bool


class Clients:
    """Threads that ask random functions that are free, until they are told to stop."""

    def __init__(self, members, events, in_flight, seed, rates):
        self.members = members
        self.events = events
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.requests = []
        self.lost, self.failures = [], []
        self.begin, self.end_us = time.monotonic(), float("inf")
        self.rates = rates
        self.threads = [threading.Thread(target=self._ask_again_and_again, args=(random.Random(seed * 1000 + number),),
                                         daemon=True) for number in range(in_flight)]
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Waits for the answers that are due."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=65)
        self.end_us = time.time_ns() // 1000

    def rate_of(self):
        """How often each function is asked."""
        return {member.name: rate for member, rate in zip(self.members, self.rates)}

    def swaps(self):
        """How often each request's function was swapped in for it: since it began, and before the function's next one."""
        requests = list(self.requests)
        of_function, swaps = {}, [0] * len(requests)
        for number, request in sorted(enumerate(requests), key=lambda one: one[1].began_us):
            of_function.setdefault(request.name, []).append((request.began_us, number))
        for event in self.events.of_kind("swapped_in"):
            known = of_function.get(event["function"], [])
            at = bisect.bisect_right(known, (event["unix_us"], len(requests))) - 1
            if at >= 0 and event["unix_us"] <= self.end_us:
                swaps[known[at][1]] += 1
        return swaps

    def _take(self, dice):
        with self.lock:
            free = [(member, weight) for member, weight in zip(self.members, self.rates)
                    if not member.is_busy and not member.error]
            if not free:
                return None
            [member] = dice.choices([member for member, _ in free], [weight for _, weight in free])
            member.is_busy = True
            return member

    def _ask_again_and_again(self, dice):
        while not self.stopping.is_set():
            member = self._take(dice)
            if member is None:
                time.sleep(0.05)
                continue
            began_us = time.time_ns() // 1000
            try:
                answer = member.function.infer()
                self.requests.append(Request(time.monotonic() - self.begin, began_us, member.name, member.model, answer["ms"],
                                             answer["sha256"] != member.first))
            except ProgramError as error:
                # A process that may still answer cannot be asked again.
                member.error = str(error)
                self.lost.append(Request(time.monotonic() - self.begin, began_us, member.name, member.model, float("inf"), False))
                self.failures.append(f"{member.name}: {error}")
                print(f"  {member.name} failed: {error}", flush=True)
            member.is_busy = False


class Watch:
    """Looks at GPU and host memory every second, in the background."""

    HEADING = ("at_s", "resident_bytes", "card_used_bytes", "store_bytes", "host_used_bytes", "shmem_bytes")

    def __init__(self, server):
        self.server = server
        self.begin = time.monotonic()
        self.before = self.look(resident_bytes=0)
        self.samples = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def look(self, resident_bytes=None):
        """A sample, as HEADING says."""
        if resident_bytes is None:
            resident_bytes = sum(row["resident_bytes"] for row in self.server.ask("functions"))
        memory = machine.memory()
        return (round(time.monotonic() - self.begin, 2), resident_bytes, machine.card_used_bytes(),
                machine.store_bytes(self.server.process.pid), memory["Used"], memory["Shmem"])

    def peak(self, key):
        """The most that was seen; None if it never was known."""
        column = self.HEADING.index(key)
        return max((sample[column] for sample in self.samples if sample[column] is not None), default=None)

    def stop(self):
        self.stopping.set()
        self.thread.join(timeout=30)

    def _watch(self):
        while not self.stopping.wait(1):
            try:
                self.samples.append(self.look())
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                print(f"  a look at the memory failed: {error}", flush=True)
