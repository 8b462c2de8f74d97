#!/usr/bin/env python3
"""Many functions from one process that has imported everything once: each is a child of its own, behind HTTP.

Hundreds of processes that each import PyTorch take minutes of sixteen cores, and more memory than most machines have. A child shares
what this process has read, weights included, until it has them on its GPU; CUDA begins in the child alone, so each is a process of
its own for the driver and for Torpor. A line of JSON on standard input starts one:

    {"name", "model", "seed", "input_seed", "environment": {...}, "log"}

and a line of its answers it when its first inference is done: {"name", "pid", "port", "sha256", "weights_bytes", "started_ms"}, or
{"name", "failed"}. All children end with this process. Each serves on 127.0.0.1:

    POST anything      one inference, batch 1: 200 if the output is its first one, bit by bit, 409 if not, 500 if it failed
    GET /figures       {"requests", "wrong", "busy_s"}: since it began
    GET anything else  200
"""

import asyncio
import contextlib
import ctypes
import functools
import gc
import glob
import hashlib
import json
import os
import pathlib
import signal
import sys
import time

_answers = os.dup(1)
os.dup2(2, 1)
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

import models  # noqa: E402
import torch  # noqa: E402

PR_SET_PDEATHSIG = 1


def say(fields):
    """A whole line at once, since all children say theirs here."""
    os.write(_answers, (json.dumps(fields) + "\n").encode())


def import_everything(names):
    """What each child would read by itself at its first inference."""
    for name in names:
        built(name, 0)
    packages = pathlib.Path(torch.__file__).parent.parent
    for library in glob.glob(f"{packages}/nvidia/*/lib/libcudnn*.so*"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(library)


@functools.cache
def built(name, seed):
    """A model on the CPU, which children share."""
    return models.build(name, seed)


class Function:
    """In a child: a model on the GPU, and the answer that it must give."""

    def __init__(self, order):
        begin = time.perf_counter()
        model = built(order["model"], order["seed"])
        self.weights_bytes = models.weights_bytes(model)
        self.model = model.to("cuda")
        self.data = models.example(order["model"], order["input_seed"])
        self.requests = self.wrong = 0
        self.busy_s = 0.0
        self.first = self.infer()
        self.started_ms = (time.perf_counter() - begin) * 1e3

    def infer(self):
        answer = models.output(self.model(self.data.to("cuda"))).cpu()
        return hashlib.sha256(answer.contiguous().numpy().tobytes()).hexdigest()

    def status(self):
        """Answers a request with an HTTP status."""
        begin = time.perf_counter()
        self.requests += 1
        try:
            is_right = self.infer() == self.first
        except RuntimeError as error:
            print(error, file=sys.stderr, flush=True)
            return 500
        finally:
            self.busy_s += time.perf_counter() - begin
        self.wrong += not is_right
        return 200 if is_right else 409

    async def serve(self, reader, writer):
        """A connection, request by request."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
                if fields.get("transfer-encoding") == "chunked":
                    await reader.readuntil(b"0\r\n\r\n")
                else:
                    await reader.readexactly(int(fields.get("content-length", 0)))
                body = b"{}"
                if head.startswith("get /figures"):
                    body = json.dumps({"requests": self.requests, "wrong": self.wrong, "busy_s": self.busy_s}).encode()
                status = self.status() if head.startswith("post") else 200
                writer.write(f"HTTP/1.1 {status} .\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                             + body)
                await writer.drain()
                if fields.get("connection") == "close":
                    break
        writer.close()

    async def listen(self, order):
        """For ever."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=128)
        say({"name": order["name"], "pid": os.getpid(), "port": server.sockets[0].getsockname()[1], "sha256": self.first,
             "weights_bytes": self.weights_bytes, "started_ms": self.started_ms})
        await server.serve_forever()


def live(order, parent):
    """A child's life."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    os.environ.update(order["environment"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        function = Function(order)
    except Exception as error:  # Whoever waits for it must know, whatever it is.
        say({"name": order["name"], "failed": f"{type(error).__name__}: {error}"[:1000]})
        return
    asyncio.run(function.listen(order))


def main():
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    torch.set_grad_enabled(False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    import_everything(sys.argv[1:])
    say({"ready": True, "pid": os.getpid()})
    for line in sys.stdin:
        order = json.loads(line)
        built(order["model"], order["seed"])
        gc.freeze()
        parent = os.getpid()
        if os.fork() == 0:
            try:
                live(order, parent)
            finally:
                os._exit(1)


if __name__ == "__main__":
    main()
