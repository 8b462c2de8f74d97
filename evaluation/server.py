"""One `torpor serve` for the scripts beside this file.

$EVALUATION_GPUS names the GPUs that a script has (as `torpor serve --gpus` has them), its native processes as well: so several scripts run
side by side on a machine with several GPUs, and each is alone on its own. Of scripts with --gpus it names those that they count (machine.py).
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WITHOUT_GPU = ROOT / "evaluation" / "without-gpu"
GPUS = os.environ.get("EVALUATION_GPUS")
if GPUS:
    # For native processes: the server counts as the driver does, and its clients as the function does.
    os.environ["CUDA_VISIBLE_DEVICES"] = GPUS


def binaries():
    """The folder with the torpor binaries: $TORPOR_BIN, or the release build."""
    return pathlib.Path(os.environ.get("TORPOR_BIN", ROOT / "target" / "release"))


class Server:
    """A node server on this machine's GPUs, in a directory of its own, for the length of a `with`."""

    def __init__(self, log, *options, settings=None, folder=None):
        """`folder` has the binaries, if not those of `binaries`; `settings` is the text of a settings file (docs/configuration.md), which comes to lie beside the log."""
        self.directory = tempfile.mkdtemp(prefix="torpor-")
        self.log, self.settings = pathlib.Path(log), None
        if settings is not None:
            self.settings = self.log.with_suffix(".toml")
            self.settings.write_text(settings)
            options = ("--config", str(self.settings), *options)
        self.torpor = str((folder or binaries()) / "torpor")
        self.options = ("--gpus", GPUS, *options) if GPUS and "--gpus" not in options else options
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen([self.torpor, "serve", "--directory", self.directory, *self.options],
                                        stderr=open(self.log, "w"), env=_with_all_gpus())
        deadline = time.monotonic() + 60
        while subprocess.run([self.torpor, "gpus", "--directory", self.directory], capture_output=True).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("the server did not start: " + self.log.read_text())
            time.sleep(0.2)
        return self

    def ask(self, verb):
        """What `torpor VERB --json` prints."""
        return json.loads(self._run(verb, "--json"))

    def function(self, name):
        """The row of a function in `torpor functions`."""
        return next(row for row in self.ask("functions") if row["name"] == name)

    def unload(self, function):
        """Takes a function's memory off the GPU; nothing of it is there when this returns."""
        self._run("unload", function)

    def load(self, function, gpu=None):
        """Brings a function's memory to its GPU, or to another one; all of it is there when this returns."""
        self._run("load", function, *([] if gpu is None else ["--gpu", str(gpu)]))

    def pin(self, function, gpu):
        """Keeps a function on a GPU; its memory comes there with its next request."""
        self._run("pin", function, "--gpu", str(gpu))

    def _run(self, *arguments):
        done = subprocess.run([self.torpor, *arguments, "--directory", self.directory], capture_output=True, text=True,
                              timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"torpor {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def __exit__(self, *_):
        if self.process.poll() is None:
            subprocess.run([self.torpor, "stop", "--directory", self.directory], check=False)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def _with_all_gpus():
    """The environment of a process that is to count all GPUs there are."""
    hidden = ("CUDA_VISIBLE_DEVICES",) if GPUS else ()
    return {name: value for name, value in os.environ.items() if name not in hidden}


def remoted(server, function=None):
    """The beginning of a command that runs as a client of the server, of this function, and cannot open the GPU."""
    name = ["--function", function] if function else []
    # A program that imports this file has the function's devices, too.
    all_gpus = ["env", "-u", "CUDA_VISIBLE_DEVICES", "-u", "EVALUATION_GPUS"] if GPUS else []
    return [str(WITHOUT_GPU), *all_gpus, server.torpor, "run", "--directory", server.directory, *name, "--"]
