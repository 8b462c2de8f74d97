"""A router before functions that are there (fleet.py), open-loop load through it, and what `torpor report` says of the records."""

import concurrent.futures
import csv
import json
import os
import pathlib
import re
import socket
import subprocess
import time
import urllib.request

from server import binaries

# A request that is not answered within this counts as missed.
PATIENCE = "10s"
# What a function's process answers when its output is not its first one, bit by bit.
WRONG = "409"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Router:
    """`torpor-router` for the length of a `with`. `directory` is a server's, or any folder where none is. Members that have not started
    have objectives, which their requests miss."""

    def __init__(self, members, directory, log, scheduler=()):
        self.directory, self.port = pathlib.Path(directory), free_port()
        self.settings, self.log = pathlib.Path(log).with_suffix(".toml"), log
        functions = []
        for member in members:
            functions.append(f"[functions.{member.name}]\nslo_ms = {member.slo_ms}")
            if member.port:
                functions.append(f'endpoints = ["127.0.0.1:{member.port}"]')
        self.settings.write_text("\n".join(["[scheduler]", *scheduler, *functions]))

    def __enter__(self):
        self.process = subprocess.Popen([binaries() / "torpor-router", "--config", self.settings, "--directory", self.directory,
                                         "--listen", f"127.0.0.1:{self.port}"],
                                        stderr=open(self.log, "w"), env={**os.environ, "TORPOR_LOG": "warn"})
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def warm(self, wanted, seconds=60):
        """One request to each, a few at a time, until it is answered. Gives those that were not."""
        deadline = time.monotonic() + seconds

        def ask(member):
            url = f"http://127.0.0.1:{self.port}/v1/functions/{member.name}/invoke"
            while time.monotonic() < deadline:
                try:
                    with urllib.request.urlopen(urllib.request.Request(url, data=b"{}"), timeout=30):
                        return None
                except OSError:
                    time.sleep(0.1)
            return member

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return [member for member in pool.map(ask, wanted) if member]

    def load(self, records, *flags, names=()):
        """`torpor load-test` with these flags. Gives the rows of `report`."""
        command = [binaries() / "torpor", "load-test", *names, "--url", f"http://127.0.0.1:{self.port}", "--data", "{}",
                   "--timeout", PATIENCE, "--config", self.settings, "--records", records, "--json", *flags]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr}")
        return summary(json.loads(done.stdout), records)

    def gpu_seconds(self):
        """{gpu: seconds in which functions used it}, as the node server counts."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.directory / "router.sock"))
            admin.sendall(b"GET /metrics HTTP/1.0\r\nhost: router\r\n\r\n")
            text = b"".join(iter(lambda: admin.recv(1 << 16), b"")).decode()
        used = {}
        for gpu, seconds in re.findall(r'^torpor_gpu_seconds_total\{[^}]*gpu="(\d+)"[^}]*\} (\S+)$', text, re.M):
            used[int(gpu)] = used.get(int(gpu), 0.0) + float(seconds)
        return used


def summary(rows, records, percentile=0.98):
    """Of all functions together, from the rows of `torpor report --json`, and of the records how many outputs were wrong."""
    functions = [row for row in rows if row["function"] != "total"] if len(rows) > 1 else rows
    with open(records, newline="") as file:
        wrong = sum(record["status"] == WRONG for record in csv.DictReader(file))
    within = sum(row["attainment"] >= percentile for row in functions)
    return {**rows[-1], "function": "total", "wrong": wrong, "functions": len(functions), "functions_in_objective": within}


def swaps_of(server):
    """Requests, and those for which memory was brought, of all functions of a server so far."""
    rows = server.ask("functions")
    return {key: sum(row[key] for row in rows) for key in ("requests", "hits", "swaps")}
