"""The faults that run makes happen: what each needs of its server, and how it is done. To do one returns when it began, and what
its function sees."""

import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import time

CULPRIT = "culprit"

KERNEL_TIMEOUT_SECONDS = 1
KERNEL_TIMEOUT = f"{KERNEL_TIMEOUT_SECONDS}s"

# How long a function has been at its kernel when something happens to it, or another one asks.
MOMENT = 0.3

# Less than the other functions have, of whose memory equal chunks are kept once.
SPILL_MIB = 4

CODES = {0: "nothing", 2: "2 out of memory", 700: "700 illegal address", 702: "702 launch timeout", 710: "710 assert",
         714: "714 stack error", 716: "716 misaligned address", 719: "719 launch failed", 999: "999 unknown"}


class Kind:
    """A fault of a function's own kernel."""

    # What the simulated driver is told to make of it, where it has no such fault of its own.
    simulated_faults = None
    # Its function's own: the driver may tell of a fault only when the kernels beside it have ended, and some wait for copies behind it.
    kernel_timeout = KERNEL_TIMEOUT
    # Whether the function has to have the GPU when it happens.
    is_active = False
    # Until which others' kernels have to run so that they are there when it happens.
    takes = 0

    def __init__(self, name):
        self.name = name

    @contextlib.contextmanager
    def place(self, functions, mib):
        """What there has to be on this machine: yields further options of the server. So many functions will have so much state."""
        yield []

    def prepare(self, server, culprit):
        """What takes a while, and happens before others are in the middle of something."""

    def do(self, server, culprit):
        said = culprit.ask("fault", self.name)
        began, code = float(said[1]), int(said[2])
        return began, CODES.get(code, str(code))

    def sees(self, server):
        """What its function sees, where that is known only when all others have answered."""


class Nothing(Kind):
    """No fault: what all of them at once take anyhow."""

    kernel_timeout = None

    def do(self, server, culprit):
        return time.monotonic(), "nothing"


class Endless(Kind):
    """A kernel that never ends, and its function's `kernel_timeout`."""

    is_active = True
    takes = KERNEL_TIMEOUT_SECONDS


class StackOverflow(Kind):
    """A function of the device that calls itself without an end."""

    simulated_faults = "launch:overflow:stack-overflow"

    def prepare(self, server, culprit):
        """On an H100 the fault never came beside kernels that wait for copies: a kernel's first launch may wait for all that run (CUDA's lazy
        loading), and whoever says something to the driver meanwhile waits with it."""
        said = culprit.ask("prepare")
        assert said[0] == "prepared", said


class OutOfMemory(Kind):
    """A function asks for memory until there is none, whoever has to leave for that."""

    kernel_timeout = None

    @contextlib.contextmanager
    def place(self, functions, mib):
        yield ["--gpu-limit", f"{(functions + 8) * mib + 128}MiB"]


class ClientKilled(Kind):
    """SIGKILL of the function's process, in the middle of what it is told."""

    kernel_timeout = None
    is_active = True

    def __init__(self, name, verb):
        super().__init__(name)
        self.verb = verb

    def prepare(self, server, culprit):
        culprit.ask(self.verb)

    def do(self, server, culprit):
        time.sleep(MOMENT)
        began = time.monotonic()
        os.kill(culprit.pid, signal.SIGKILL)
        return began, "(it is gone)"


class ClientKilledWaiting(ClientKilled):
    """The same while another function has the GPU."""

    is_active = False

    def prepare(self, server, culprit):
        """Others have to have the GPU before."""

    def do(self, server, culprit):
        culprit.tell(self.verb)
        return super().do(server, culprit)


class WorkerKilled(Kind):
    """SIGKILL of the GPU's worker."""

    kernel_timeout = None
    is_active = True

    def prepare(self, server, culprit):
        culprit.ask("begin")
        self.pid = server.ask("gpus")[0]["worker_pid"]

    def do(self, server, culprit):
        began = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)
        return began, "(an operator)"


class ServerKilled(Kind):
    """SIGKILL of a server that has a keeper."""

    kernel_timeout = None

    @contextlib.contextmanager
    def place(self, functions, mib):
        yield ["--keeper", "true"]

    def do(self, server, culprit):
        pid = int((pathlib.Path(server.directory) / "lock").read_text())
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return began, "(an operator)"


class StoreFull(Kind):
    """A function has more than the host store can take in, and is to leave its GPU."""

    kernel_timeout = None

    @contextlib.contextmanager
    def place(self, functions, mib):
        yield self.pool(functions, mib)

    def pool(self, functions, mib):
        slab_mib = max(mib, 16)
        # As much again as all have: contents are kept while they are saved anew. All of it is enough for the one, but not beside others.
        pool_mib = -(-2 * functions * mib // slab_mib) * slab_mib
        self.grows_mib = pool_mib - mib
        return ["--host-slab", f"{slab_mib}MiB", "--host-pool", f"{pool_mib}MiB"]

    def prepare(self, server, culprit):
        culprit.ask("grow", str(self.grows_mib))

    def do(self, server, culprit):
        began = time.monotonic()
        self.leaving = threading.Thread(target=self.unload, args=[server])
        self.leaving.start()
        return began, None

    def sees(self, server):
        self.leaving.join()
        return "nothing; it stays on its GPU" if server.function(CULPRIT)["resident_bytes"] else "NOTHING WAS FULL"

    def unload(self, server):
        """The server gives up after a while."""
        with contextlib.suppress(RuntimeError):
            server.unload(CULPRIT)


class SpillFull(StoreFull):
    """The same where chunks go to files, on a disk that is full."""

    @contextlib.contextmanager
    def place(self, functions, mib):
        directory = pathlib.Path("/run") / f"torpor-spill-{os.getpid()}"
        directory.mkdir()
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SPILL_MIB}m,mode=700", "tmpfs", str(directory)], check=True)
            try:
                yield [*self.pool(functions, mib), "--spill-dir", str(directory)]
            finally:
                subprocess.run(["umount", str(directory)], check=True)
        finally:
            directory.rmdir()


KINDS = {kind.name: kind for kind in [
    Nothing("none"), Kind("illegal"), Kind("misaligned"), Kind("assert"), StackOverflow("stack-overflow"), Endless("endless"), OutOfMemory("out-of-memory"),
    ClientKilled("client-killed", "begin"), ClientKilled("client-killed-in-copy", "copy"), ClientKilledWaiting("client-killed-waiting", "answer"),
    WorkerKilled("worker-killed"), ServerKilled("server-killed"), StoreFull("store-full"), SpillFull("spill-full")]}
