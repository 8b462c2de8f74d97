"""One `torpor router` for the scripts beside this file, and its settings file. Who asks through it: asking.py, open_loop.py."""

import json
import pathlib
import re
import socket
import subprocess
import sys
import time

from asking import Client
from server import ROOT, binaries

ENDPOINT = ROOT / "scripts" / "endpoint.py"


def settings(functions, scheduler=None, defaults=None, memory=None):
    """The text of a settings file. `functions` is {name: {key: value}}, the others are {key: value}."""
    sections = {"memory": memory or {}, "scheduler": scheduler or {}, "defaults": defaults or {},
                **{f"functions.{name}": of for name, of in functions.items()}}
    return "\n".join(f"[{name}]\n" + "".join(f"{key} = {written(value)}\n" for key, value in keys.items())
                     for name, keys in sections.items())


def written(value):
    """A value as TOML has it, which is as JSON has it but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {written(of)}" for key, of in value.items()) + " }"
    return json.dumps(value)


def command(model, *flags):
    """What a function's processes are started with."""
    return [sys.executable, str(ENDPOINT), "--model", model, *map(str, flags)]


def endpoints(members):
    """The functions of a settings file whose processes (fleet.py) are somebody else's. Those that have not started have objectives, which
    their requests miss."""
    return {member.name: {"slo_ms": member.slo_ms, **({"endpoints": [f"127.0.0.1:{member.port}"]} if member.port else {})}
            for member in members}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Router:
    """A router for the length of a `with`, for the functions of a settings file. `directory` is a server's, or any folder where none is."""

    def __init__(self, config, directory, log):
        self.settings, self.directory, self.log = pathlib.Path(config), pathlib.Path(directory), pathlib.Path(log)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        command_line = [binaries() / "torpor", "router", "--directory", self.directory, "--config", self.settings,
                        "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(list(map(str, command_line)), stderr=open(self.log, "w"))
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            print(f"the router did not end by itself: {self.log}", flush=True)

    def admin(self, path):
        """What its admin socket answers, as text."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(30)
            admin.connect(str(self.directory / "router.sock"))
            admin.sendall(f"GET {path} HTTP/1.0\r\nhost: router\r\n\r\n".encode())
            answer = b"".join(iter(lambda: admin.recv(1 << 16), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"{path}: {answer[:300]!r}")
        return body.decode()

    def wait_ready(self, seconds):
        """Until every function has a process that answers. Ends the script if one has not in time."""
        deadline = time.monotonic() + seconds
        while True:
            if self.process.poll() is not None:
                sys.exit("the router ended: " + self.log.read_text())
            try:
                rows = json.loads(self.admin("/api/v1/functions"))
            except OSError:
                rows = None  # It does not listen yet.
            missing = [row["name"] for row in rows or [] if all(one["state"] != "ready" for one in row["instances"])]
            if rows and not missing:
                return
            if time.monotonic() > deadline:
                said = "".join(f"\n{name}:\n{self.admin(f'/logs/{name}')[-1500:]}" for name in missing[:2])
                sys.exit(f"not ready within {seconds:.0f} s: {' '.join(missing)}{said}")
            time.sleep(0.2)

    def gpu_seconds(self):
        """How long each GPU was used since the node server began: {gpu: seconds}."""
        used = {}
        for gpu, seconds in re.findall(r'^torpor_gpu_seconds_total\{.*?gpu="(\d+)".*?\} ([\d.e+-]+)', self.admin("/metrics"), re.M):
            used[int(gpu)] = used.get(int(gpu), 0.0) + float(seconds)
        return used

    def client(self):
        """A connection of one's own."""
        return Client(self.port)
