#!/usr/bin/env python3
"""A function behind HTTP, as `torpor router` starts it: a model that answers on the port in $PORT.

    POST /invoke               JSON, or a picture as it is; an empty body is a request with a random input
    POST /v1/chat/completions  of a language model, as OpenAI has it; "stream": true gives tokens as they come
    GET  /health               2xx once the model has answered once

Payloads: {"image": BASE64} for classifiers, {"tokens": [...]} for small_qa and BERT, {"prompt": TEXT, "max_tokens": N} for
small_llm and llama_1b, {"row": N} for weights.
"""

import argparse
import base64
import http.server
import itertools
import json
import os
import queue
import threading

import torch

import endpoint_models
from endpoint_models import BadRequest

MOST_BYTES = 64 << 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True,
                        help="a classifier of torchvision, bert_base_qa, bert_large_qa, small_cnn, small_qa, small_llm, llama_1b, llama_tiny, or weights")
    parser.add_argument("--weights", metavar="FILE", help="a state dict [default: random weights]")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("--mib", type=int, default=32, help="how much --model weights has")
    parser.add_argument("--port", type=int, default=os.environ.get("PORT"), help="[default: $PORT]")
    chosen = parser.parse_args()
    if chosen.port is None:
        parser.error("no port: give --port or set $PORT")
    return chosen


class Work:
    """What the model's thread is to do: something that yields. Every thread that uses CUDA has handles and workspaces of its own
    there, so one does all of it; and one request at a time has the model: others wait in the router, where they can be seen."""

    waiting = queue.SimpleQueue()
    OVER = object()

    def __init__(self, make):
        self.make, self.results, self.wanted = make, queue.SimpleQueue(), True

    def __iter__(self):
        self.waiting.put(self)
        try:
            while (result := self.results.get()) is not self.OVER:
                if isinstance(result, Exception):
                    raise result
                yield result
        finally:
            self.wanted = False

    def do(self):
        """In the model's thread."""
        try:
            for result in self.make():
                self.results.put(result)
                if not self.wanted:
                    break
        except Exception as error:  # Whoever asked has to know, whatever it is.
            self.results.put(error)
        self.results.put(self.OVER)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer's body is sent behind its head: else it waits until the other side has acknowledged that, which may take 40 ms.
    disable_nagle_algorithm = True
    model = None

    def log_message(self, *_):
        """What is worth a line is in the router's metrics."""

    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            pass  # The other side has hung up, and nobody is there to be told.

    def do_GET(self):
        if self.path == "/health":
            self.send(200, {"status": "ok"})
        else:
            self.send(404, {"error": {"message": "there is GET /health and POST /invoke"}})

    def do_POST(self):
        try:
            payload = self.payload()
            if payload.get("stream") and hasattr(self.model, "tokens"):
                return self.stream(payload)
            (answer,) = Work(lambda: (self.model.answer(one) for one in [payload]))
            self.send(200, answer)
        except BadRequest as error:
            self.send(400, {"error": {"message": str(error)}})
        except RuntimeError as error:
            # A CUDA error that stays would be every later request's, too: the router starts another process.
            self.send(500, {"error": {"message": str(error)}})
            if "CUDA" in str(error) and "out of memory" not in str(error):
                os._exit(1)

    def payload(self):
        if self.headers.get("transfer-encoding"):
            body = self.chunks()
        else:
            length = self.headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > MOST_BYTES:
                self.close_connection = True
                raise BadRequest(f"the body may have {MOST_BYTES} bytes")
            body = self.rfile.read(int(length))
        if self.headers.get("content-type", "").startswith("image/"):
            return {"image": base64.b64encode(body).decode()}
        try:
            payload = json.loads(body or b"{}")
        except ValueError as error:
            raise BadRequest(f"the body is no JSON: {error}") from error
        if not isinstance(payload, dict):
            raise BadRequest("the body must be a JSON object")
        return payload

    def chunks(self):
        """A body whose length is not said beforehand."""
        body = b""
        while True:
            try:
                length = int(self.rfile.readline(256).split(b";")[0], 16)
            except ValueError as error:
                self.close_connection = True
                raise BadRequest("the body's chunks are broken") from error
            if not 0 <= length <= MOST_BYTES - len(body):
                self.close_connection = True
                raise BadRequest(f"the body may have {MOST_BYTES} bytes")
            body += self.rfile.read(length)
            self.rfile.readline(8)
            if length == 0:
                return body

    def send(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, payload):
        """Server-sent events, one for each token."""
        tokens = iter(Work(lambda: self.model.tokens(payload)))
        # The first one may be refused.
        first = next(tokens)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-cache")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for token in itertools.chain([first], tokens):
            self.event(self.delta(token))
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def delta(self, token):
        choice = {"index": 0, "delta": {"content": token}, "text": token, "finish_reason": None}
        return json.dumps({"object": "chat.completion.chunk", "model": self.model.name, "choices": [choice]})

    def event(self, data):
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.flush()


def main():
    chosen = arguments()
    Handler.model = endpoint_models.build(chosen)
    with torch.inference_mode():
        # Whatever is loaded or compiled with the first request is no client's wait.
        Handler.model.answer({})
        http.server.ThreadingHTTPServer.daemon_threads = True
        server = http.server.ThreadingHTTPServer(("127.0.0.1", chosen.port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"{chosen.model} answers on port {chosen.port}", flush=True)
        while True:
            Work.waiting.get().do()


if __name__ == "__main__":
    main()
