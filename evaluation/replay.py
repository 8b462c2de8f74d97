"""Traces that are drawn by `torpor simulate`, so that real GPUs and the simulator get the same requests."""

import json
import subprocess

from server import binaries


def simulate(profile, flags):
    """The object that `torpor simulate --json` prints."""
    command = list(map(str, [binaries() / "torpor", "simulate", "--profile", profile, "--json", *flags]))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return json.loads(done.stdout)


def draw_trace(path, models, functions, minutes, speed, seed, spacing="poisson"):
    """A trace of the functions `fleet.members` makes, with the statistics of the paper's prototype, at `speed` times its rate. The file
    has one line for each request, with `function` and `scheduled_s`; what the simulator says became of them there is of no interest."""
    simulate("h200x1", ["--models", ",".join(models), "--functions", functions, "--minutes", minutes, "--speed", speed, "--seed", seed,
                        "--spacing", spacing, "--records", path])
    return path
