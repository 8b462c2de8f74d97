"""The side that tells programs what to do (answering.py is theirs): starts them, asks with a time-out, ends them."""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent


class ProgramError(Exception):
    """It did not answer, or with an error."""


class Program:
    """A running program that answers line by line. Use as a `with`, or call `end`. For one thread at a time."""

    def __init__(self, command, log, environment=None):
        self.log = pathlib.Path(log)
        self.buffer = b""
        self.information = {}
        with open(self.log, "w") as errors:
            # Its own process group, so that ending it by force reaches what it started.
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, bufsize=0,
                                            stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
                                            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
                                                 "TOKENIZERS_PARALLELISM": "false", **(environment or {})})

    def wait_ready(self, timeout=180):
        """Waits for its first line. Gives it, and keeps it as `information`."""
        self.information = self._receive(timeout)
        return self.information

    def ask(self, *words, timeout=60):
        """Tells it something and waits for the answer."""
        try:
            self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        except BrokenPipeError:
            raise self._failure("has ended") from None
        return self._receive(timeout)

    def ask_to_end(self):
        """Without waiting."""
        try:
            self.process.stdin.write(b"quit\n")
            self.process.stdin.close()
        except (BrokenPipeError, ValueError):
            pass

    def end(self, timeout=15):
        """Ends it: by asking, else by force."""
        self.ask_to_end()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def _receive(self, timeout):
        deadline = time.monotonic() + timeout
        descriptor = self.process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1e3):
                raise self._failure(f"no answer within {timeout} s")
            received = os.read(descriptor, 65536)
            if not received:
                raise self._failure("has ended")
            self.buffer += received
        line, self.buffer = self.buffer.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise ProgramError(answer["error"])
        return answer

    def _failure(self, what):
        tail = " | ".join(self.log.read_text(errors="replace").splitlines()[-4:])
        return ProgramError(f"{self.log.stem}: {what}; the end of its log: {tail}")


class Function(Program):
    """A function.py: native, or as a function of a server if `prefix` is the beginning of such a command."""

    def __init__(self, model, log, prefix=(), seed=0, input_seed=0, deterministic=False, device="cuda"):
        self.model, self.seed, self.input_seed = model, seed, input_seed
        super().__init__([*prefix, sys.executable, HERE / "function.py", model, "--seed", seed, "--input-seed", input_seed,
                          "--device", device, *(["--deterministic"] if deterministic else [])], log)

    def infer(self, *input_seed, timeout=60):
        """One inference: {"ms", "sha256"}."""
        return self.ask("infer", *input_seed, timeout=timeout)


def end_all(programs):
    """Ends many at once."""
    for program in programs:
        program.ask_to_end()
    for program in programs:
        program.end()
