#!/usr/bin/env python3
"""How often a sequence of requests has to bring functions to a GPU: by who was used longest ago, with the future known, and at least.

    evaluation/crowd/offline.py MODEL=N:SIZE... [--gpu-limit SIZE] [--requests N] [--zipf S | --rates trace|invocations] [--seed N]
    evaluation/crowd/offline.py MODEL=N:SIZE... [--gpu-limit SIZE] --recorded FILE [--in-flight N]

./run says so of what it has seen. By itself this draws requests as ./run does, one after the other, for so many functions of each model
with so much memory each, or takes those that a run recorded, in the order in which they began, and prints three numbers of swaps. No GPU,
some seconds.
"""

import argparse
import bisect
import collections
import csv
import dataclasses
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import machine  # noqa: E402
import rates  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Requests that have to bring their function's memory."""

    lru: int
    # The future is known. The best way with functions of several sizes is not computable; this is the better of two that are near it.
    foreseen: int
    # What is kept is not chosen by the future, and each request is drawn as all others are: nothing that is kept is better on average than
    # the functions that are asked most for their size. A part of a function counts as a part of its requests. It goes by how often each is
    # asked in the long run, as by chance a few minutes have favourites that nobody can know either.
    unforeseen: int


def bounds(requests, bytes_of, limit_bytes, rate_of):
    """Of functions' names in the order in which they were asked, each one's memory, and how often each is asked."""
    return Bounds(
        lru=_swaps(requests, bytes_of, limit_bytes, lambda name, at, seen: -seen),
        foreseen=min(_swaps(requests, bytes_of, limit_bytes, rank) for rank in _by_the_future(requests, bytes_of)),
        unforeseen=_unforeseen(len(requests), bytes_of, limit_bytes, rate_of))


def _by_the_future(requests, bytes_of):
    """Who leaves first: whoever is asked last, and whoever takes most room for longest."""
    asked = collections.defaultdict(list)
    for at, name in enumerate(requests):
        asked[name].append(at)

    def rests(name, at):
        times = asked[name]
        later = bisect.bisect_right(times, at)
        return times[later] - at if later < len(times) else len(requests)

    yield lambda name, at, seen: rests(name, at)
    yield lambda name, at, seen: rests(name, at) * bytes_of[name]


def _swaps(requests, bytes_of, limit_bytes, rank):
    """Requests whose function is not there, if those of the highest rank leave for it, and nobody in vain."""
    there, swaps = {}, 0
    for at, name in enumerate(requests):
        if name not in there:
            swaps += 1
            freed, leaving = limit_bytes - sum(bytes_of[other] for other in there), []
            for other in sorted(there, key=lambda other: rank(other, at, there[other]), reverse=True):
                if freed >= bytes_of[name]:
                    break
                freed += bytes_of[other]
                leaving.append(other)
            for other in leaving:
                if freed - bytes_of[other] >= bytes_of[name]:
                    freed -= bytes_of[other]
                else:
                    del there[other]
        there[name] = at
    return swaps


def _unforeseen(requests, bytes_of, limit_bytes, rate_of):
    hits, left, every = 0.0, limit_bytes, sum(rate_of.values())
    for name in sorted(rate_of, key=lambda name: rate_of[name] / max(1, bytes_of[name]), reverse=True):
        part = min(1.0, left / max(1, bytes_of[name]))
        hits, left = hits + part * rate_of[name] / every, left - part * bytes_of[name]
    return round(requests * (1 - hits))


def recorded(path, in_flight):
    """Functions' names in the order in which they were asked, of a run's requests.csv, or of one of its spells."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if in_flight is None or int(row["in_flight"]) == in_flight]
    rows.sort(key=lambda row: float(row["at_s"]) - float(row["ms"]) / 1e3)
    return [row["function"] for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("functions", nargs="+", metavar="MODEL=N:SIZE")
    parser.add_argument("--gpu-limit", default="4GiB", metavar="SIZE")
    parser.add_argument("--requests", type=int, default=20_000, metavar="N")
    rates.add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recorded", metavar="FILE", help="a requests.csv of ./run")
    parser.add_argument("--in-flight", type=int, default=None, metavar="N", help="the spell with so many at a time")
    given = parser.parse_args()
    bytes_of = {}
    for word in given.functions:
        model, count, size = word.replace(":", "=").split("=")
        bytes_of |= {f"{model}-{number}": machine.size(size) for number in range(int(count))}
    rate_of = dict(zip(bytes_of, rates.of_arguments(given, len(bytes_of))))
    if given.recorded:
        requests = recorded(given.recorded, given.in_flight)
    else:
        requests = random.Random(given.seed).choices(list(rate_of), list(rate_of.values()), k=given.requests)
    found = bounds(requests, bytes_of, machine.size(given.gpu_limit), rate_of)
    print(f"swaps in {len(requests)} requests of {len(set(requests))} functions: by who was used longest ago {found.lru}; with the future known "
          f"{found.foreseen}; without at least {found.unforeseen}, {found.unforeseen / max(1, found.foreseen):.2f} times that")


if __name__ == "__main__":
    main()
