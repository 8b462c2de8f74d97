"""One `torpor serve` for the scripts beside this file."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WITHOUT_GPU = ROOT / "evaluation" / "without-gpu"


def binaries():
    """The folder with the torpor binaries: $TORPOR_BIN, or the release build."""
    return pathlib.Path(os.environ.get("TORPOR_BIN", ROOT / "target" / "release"))


class Server:
    """A node server on this machine's GPUs, in a directory of its own, for the length of a `with`."""

    def __init__(self, log, *options):
        self.directory = tempfile.mkdtemp(prefix="torpor-")
        self.log = pathlib.Path(log)
        self.torpor = str(binaries() / "torpor")
        self.options = options
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen([self.torpor, "serve", "--directory", self.directory, *self.options],
                                        stderr=open(self.log, "w"))
        deadline = time.monotonic() + 60
        while subprocess.run([self.torpor, "gpus", "--directory", self.directory], capture_output=True).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("the server did not start: " + self.log.read_text())
            time.sleep(0.2)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            subprocess.run([self.torpor, "stop", "--directory", self.directory], check=False)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def remoted(server):
    """The beginning of a command that runs as a client of the server and cannot open the GPU."""
    return [str(WITHOUT_GPU), server.torpor, "run", "--directory", server.directory, "--"]
