"""One `torpor router` for the scripts beside this file, before a server of server.py, and requests to its functions."""

import dataclasses
import http.client
import json
import re
import socket
import subprocess
import sys
import time
import urllib.parse

from server import ROOT

ENDPOINT = ROOT / "scripts" / "endpoint.py"


def settings(functions, scheduler=None, defaults=None):
    """The text of a settings file. `functions` is {name: {key: value}}, `scheduler` and `defaults` are {key: value}."""
    sections = {"scheduler": scheduler or {}, "defaults": defaults or {}, **{f"functions.{name}": of for name, of in functions.items()}}
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


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Router:
    """A router for the length of a `with`, for the functions of the server's settings file."""

    def __init__(self, server, log):
        self.server, self.log, self.port, self.process = server, log, free_port(), None
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        command_line = [self.server.torpor, "router", "--directory", self.server.directory, "--config", self.server.settings,
                        "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(list(map(str, command_line)), stderr=open(self.log, "w"))
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def admin(self, path):
        """What its admin socket answers, as text."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(30)
            admin.connect(f"{self.server.directory}/router.sock")
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
                sys.exit("the router ended: " + open(self.log).read())
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
        """How long each GPU was used since the server began: {gpu: seconds}."""
        used = {}
        for gpu, seconds in re.findall(r'^torpor_gpu_seconds_total\{.*?gpu="(\d+)".*?\} ([\d.e+-]+)', self.admin("/metrics"), re.M):
            used[int(gpu)] = used.get(int(gpu), 0.0) + float(seconds)
        return used

    def client(self):
        """A connection of one's own."""
        return Client(self.port)


@dataclasses.dataclass
class Answer:
    """What became of a request; times in milliseconds from its beginning."""

    status: int
    first_ms: float
    whole_ms: float
    start: str
    body: bytes


class Client:
    """Asks one thing after the other on a connection that is kept. For one thread at a time."""

    def __init__(self, port, patience=300):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)

    def post(self, path, payload):
        """Sends JSON. The first byte is that of the answer's body."""
        began = time.perf_counter()
        self.connection.request("POST", urllib.parse.quote(path), body=json.dumps(payload).encode())
        answer = self.connection.getresponse()
        first = answer.read(1)
        first_ms = 1e3 * (time.perf_counter() - began)
        body = first + answer.read()
        return Answer(answer.status, first_ms, 1e3 * (time.perf_counter() - began), answer.getheader("x-torpor-start") or "", body)

    def invoke(self, function, payload=None):
        """Asks a function by its name."""
        return self.post(f"/v1/functions/{function}/invoke", payload or {})

    def close(self):
        self.connection.close()
