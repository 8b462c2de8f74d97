"""A program.py that runs as a function of a server."""

import contextlib
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from server import remoted  # noqa: E402

# Longer than any answer takes; an endless kernel's function is ended after its own time.
PATIENCE = 60


class Function:
    """The process, and what it says."""

    def __init__(self, server, name, mib, logs, *words):
        self.name = name
        self.process = subprocess.Popen(
            remoted(server, name) + [sys.executable, str(HERE / "program.py"), name, str(mib), *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(logs / f"{server.log.stem}.{name}.log", "w"), text=True)
        self.lines = queue.Queue()
        self.pid = None
        threading.Thread(target=self.read, daemon=True).start()

    def is_ready(self):
        """Waits until it is."""
        self.pid = int(self.hear()[1])

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.split())
        self.lines.put(["ended"])

    def tell(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def hear(self):
        """What it says next; `silent` if that is nothing."""
        try:
            return self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            return ["silent"]

    def ask(self, *words):
        self.tell(*words)
        return self.hear()

    def answers(self):
        said = self.ask("answer")
        assert said[0] == "answer" and said[2] == "ok", (self.name, said)

    def end(self):
        # The program, and whoever has started it.
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
