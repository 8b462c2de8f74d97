"""What the measuring scripts beside this file have in common: models, rounds, tables."""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

from server import ROOT, remoted

PROGRAM = ROOT / "evaluation" / "latency" / "program.py"

# Models, inputs and the CPU's answers, made once and read by every process that measures. Cargo's folder is ignored by git
# and nobody else's.
MODELS = ROOT / "target" / "evaluation-models"

# Table 4 of the paper.
TABLE_4 = ["densenet169", "densenet201", "inception_v3", "efficientnet_b0", "resnet50", "resnet101", "resnet152",
           "bert_large_qa"]

# Instead of models, where there is only a simulated GPU: it cannot run PyTorch's kernels.
STAND_IN = "copy_only"


def add_common_arguments(parser, rounds=None):
    """The flags that every script has; --rounds if there are any."""
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--logs", default=None, metavar="DIR", help="keep what every process printed here")
    parser.add_argument("--simulated", action="store_true",
                        help="without a GPU: try the script itself; `native` is then remoted as well, the model a copy")


def folder_of_logs(arguments, name):
    """The folder for logs and results, which is there."""
    logs = pathlib.Path(arguments.logs or tempfile.mkdtemp(prefix=f"torpor-{name}-"))
    logs.mkdir(parents=True, exist_ok=True)
    return logs


def server_options(arguments):
    """Of `torpor serve`."""
    return ["--driver", "simulated"] if arguments.simulated else []


def native(arguments, server):
    """The beginning of a command that uses the machine's own driver."""
    return remoted(server) if arguments.simulated else []


def prepare(models):
    """Makes the models that are not there yet, on the CPU, all at once: most of that is done by one thread."""
    missing = [model for model in models if not (MODELS / f"{model}.pt").exists()]
    if not missing:
        return
    MODELS.mkdir(parents=True, exist_ok=True)
    # More threads than CPUs wait for each other for minutes.
    environment = dict(os.environ, OMP_NUM_THREADS=str(max(1, os.cpu_count() // (2 * len(missing)))))
    making = [subprocess.Popen([sys.executable, str(PROGRAM), "prepare", str(MODELS), model], env=environment) for model in missing]
    if any([process.wait() for process in making]):
        sys.exit("the models could not be made")


def output_of(command, log, environment=None):
    """Runs a command to its end and gives what it printed; ends this script if it failed."""
    with open(log, "a") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, check=False)
        errors.write(done.stdout)
    if done.returncode != 0:
        tail = "\n".join(pathlib.Path(log).read_text(errors="replace").splitlines()[-15:])
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}; the end of {log}:\n{tail}")
    return done.stdout


def figures_of(command, log, environment=None):
    """What a program.py printed: {model: figures}."""
    lines = [line for line in output_of(command, log, environment).splitlines() if line.startswith("{")]
    return {figures["model"]: figures for figures in map(json.loads, lines)}


def geometric_mean(numbers):
    """Of ratios."""
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


def percentile(numbers, percent):
    """The smallest number that so many percent do not exceed (nearest rank)."""
    ordered = sorted(numbers)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def print_table(rows):
    """Rows of texts, the first of them the heading; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
                 for column, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip(), flush=True)


def title(arguments, text):
    """Of a drawing, which says so where no GPU was measured."""
    return f"SIMULATED GPU, times mean nothing: {text}" if arguments.simulated else text


class Bars:
    """What is promised, and whether it is so."""

    def __init__(self):
        self.missed = []

    def say(self, what, holds, measured):
        """One line for one promise."""
        print(f"{'met   ' if holds else 'MISSED'} {what}: {measured}", flush=True)
        if not holds:
            self.missed.append(what)

    def end(self):
        """Ends the script: with 1 if a promise is broken."""
        sys.exit(1 if self.missed else 0)
