"""Files of random weights, made once."""

import pathlib
import subprocess
import sys

from server import ROOT

HERE = pathlib.Path(__file__).resolve().parent


def add_argument(parser):
    """--weights."""
    parser.add_argument("--weights", type=pathlib.Path, default=ROOT / "target" / "evaluation-weights", metavar="DIR")


def prepare(folder, models, logs, tiny):
    """Makes the files that are not there yet, side by side. Gives {model: file}."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {model: folder / f"{model}.pt" for model in models}
    makers = []
    for seed, (model, file) in enumerate(files.items()):
        if not file.exists():
            command = [sys.executable, HERE / "program.py", "make", model, file, str(seed), *(["--tiny"] if tiny else [])]
            makers.append((model, subprocess.Popen(list(map(str, command)), stderr=open(logs / f"make-{model}.log", "w"))))
    for model, maker in makers:
        if maker.wait():
            raise RuntimeError(f"{model} could not be made: {logs / f'make-{model}.log'}")
    return files
