"""`torpor simulate` for the figures that are simulated: one run for each point, as many at a time as there are CPUs."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import measured
from server import binaries


def arguments(description, here):
    """The flags of a figure that is simulated (--simulate) or measured (without, measured.py)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few minutes of the trace and fewer points")
    virtual = parser.add_argument_group("simulated: torpor simulate, no GPU")
    virtual.add_argument("--simulate", metavar="PROFILE", help="the node: v100x4, h200x8 or a file")
    virtual.add_argument("--seeds", type=int, default=3, metavar="N", help="traces that each point is the mean of")
    virtual.add_argument("--records", metavar="DIR", help="keep what became of each request here, one CSV for each run")
    measured.add_arguments(parser.add_argument_group("measured: on this machine's GPUs"))
    given = parser.parse_args()
    if given.quick:
        given.seeds = 1
    if given.simulate:
        given.output = given.output or here
    return given


def minutes(given):
    """How long a trace is."""
    return 5 if given.quick else 31


def simulate(given, points):
    """`points` is {key: flags}. Gives {key: [totals of each seed]}, the keys in order."""
    torpor = binaries() / "torpor"
    if not torpor.exists():
        sys.exit(f"{torpor} is not there: cargo build --release, or set TORPOR_BIN")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(given.records or scratch)
        folder.mkdir(parents=True, exist_ok=True)

        def run(key, flags, seed):
            name = "-".join(map(str, key)).replace(" ", "_").replace("/", "_")
            command = [torpor, "simulate", "--profile", given.simulate, "--seed", str(seed), "--json",
                       "--minutes", str(minutes(given)), "--records", folder / f"{name}-{seed}.csv", *map(str, flags)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr}")
            return json.loads(done.stdout)["totals"]

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            runs = {key: [pool.submit(run, key, flags, seed) for seed in range(1, given.seeds + 1)]
                    for key, flags in points.items()}
            return {key: [one.result() for one in of_key] for key, of_key in runs.items()}


def attained(totals):
    """Of 100 functions, those that had as many of their requests in time as they should: the mean over the seeds."""
    return sum(100 * one["functions_in_objective"] / one["functions"] for one in totals) / len(totals)


def row(key, totals):
    """Of a summary: what the simulations say, means over the seeds, sums of counts."""
    def mean(name):
        return sum(one[name] for one in totals) / len(totals)

    def of_all(name):
        known = [one["total"][name] for one in totals]
        return "never" if None in known else round(sum(known) / len(known), 2)

    requests = sum(one["total"]["requests"] for one in totals)
    lost = sum(one["total"][kind] for one in totals for kind in ("errors", "timeouts", "unsent"))
    return [*key, len(totals), requests, lost, round(attained(totals), 2),
            round(100 * sum(one["total"]["attainment"] for one in totals) / len(totals), 3),
            of_all("p50_ms"), of_all("p98_ms"), of_all("p99_ms"), round(mean("busy_gpus"), 3), round(mean("swaps")),
            round(mean("evictions")), round(mean("moves"))]


HEADING = ["seeds", "requests", "failed, timed out or unsent", "functions in objective %", "requests in objective %",
           "p50 ms", "p98 ms", "p99 ms", "GPUs at work", "swaps", "evictions", "moves"]
