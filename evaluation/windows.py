"""For how long without a request a process is kept: the 99th percentile of the gaps between a function's requests. As in
`torpor simulate` (torpor-cli/src/simulate/baseline.rs)."""

import collections
import csv

from measuring import percentile

# What a function is kept alive for of which no gap is known.
FIRST_S = 60
# Gaps of the past that a window is made of.
MEMORY = 200


class Learnt:
    """By the gaps so far."""

    def __init__(self):
        self.gaps, self.last = collections.deque(maxlen=MEMORY), None

    def asked(self, now):
        """A request comes."""
        if self.last is not None:
            self.gaps.append(now - self.last)
        self.last = now

    def seconds(self):
        return percentile(self.gaps, 99) if self.gaps else FIRST_S


class Foreseen(Learnt):
    """By all gaps of a trace, those to come included: what nobody can know."""

    def __init__(self, times):
        super().__init__()
        self.gaps.extend(after - before for before, after in zip(times, times[1:]))

    def asked(self, now):
        pass


def of_trace(path, names, foreseen):
    """{name: window} for a trace of replay.py's."""
    if not foreseen:
        return {name: Learnt() for name in names}
    times = {name: [] for name in names}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            times[row["function"]].append(float(row["scheduled_s"]))
    return {name: Foreseen(sorted(of)) for name, of in times.items()}
