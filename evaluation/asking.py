"""Requests one after the other, and how long each took."""

import dataclasses
import http.client
import json
import time
import urllib.parse


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
