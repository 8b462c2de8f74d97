"""Requests to more functions than the GPU holds, one after the other in the order in which they come."""

import random
import time

# Who has waited so long before it is its turn has gone.
PATIENCE_S = 10


def arrivals(names, rate, seconds, seed):
    """[(second, name)], `rate` a second of all together. Some are asked four times as often as others."""
    draw, rows = random.Random(seed), []
    weights = [(1, 2, 4)[number % 3] for number in range(len(names))]
    at = 0.0
    while (at := at + draw.expovariate(rate)) < seconds:
        rows.append((at, draw.choices(names, weights)[0]))
    return rows


class Room:
    """Who is on the GPU, for those ways in which somebody has to decide that: whoever was asked longest ago leaves."""

    def __init__(self, functions, bytes_there):
        self.functions, self.bytes_there = functions, bytes_there
        self.there, self.swaps = [], 0

    def bring(self, name):
        """What a request waits for."""
        if name in self.there:
            self.there.remove(name)
        else:
            need = self.functions[name].bytes
            while self.there and sum(self.functions[other].bytes for other in self.there) + need > self.bytes_there:
                self.functions[self.there.pop(0)].way.leave()
            self.functions[name].way.come()
            self.swaps += 1
        self.there.append(name)


def replay(rows, functions, room, time_is_over):
    """Gives what became of each request, [(name, latency in ms or None, whether the output is wrong)]."""
    begin, became = time.monotonic(), []
    for at, name in rows:
        while (early := begin + at - time.monotonic()) > 0:
            time.sleep(min(early, 0.2))
        if time_is_over() or time.monotonic() - begin - at > PATIENCE_S:
            became.append((name, None, False))
            continue
        if room:
            room.bring(name)
        answer = functions[name].way.infer()
        became.append((name, (time.monotonic() - begin - at) * 1e3, answer["sha256"] != functions[name].expected))
    return became
