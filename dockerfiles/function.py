"""A function for trying images: it keeps numbers on a GPU and answers sums, with nothing but Python and libcuda.so.1.

POST /invoke with {"add": N} adds N to each of its 1024 numbers and answers their sum; GET /health says that the GPU answers.
"""

import array
import ctypes
import http.server
import json
import os

COUNT = 1024
cuda = ctypes.CDLL("libcuda.so.1")


def call(name, *arguments):
    code = getattr(cuda, name)(*arguments)
    if code:
        raise RuntimeError(f"{name}: CUDA error {code}")


class Numbers:
    """Numbers in device memory. They are changed on the CPU, so that a simulated GPU needs no kernel."""

    def __init__(self):
        device, context = ctypes.c_int(), ctypes.c_void_p()
        call("cuInit", 0)
        call("cuDeviceGet", ctypes.byref(device), 0)
        call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        call("cuCtxSetCurrent", context)
        self.context, self.address = context, ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(self.address), ctypes.c_size_t(4 * COUNT))
        call("cuMemsetD32_v2", self.address, ctypes.c_uint(0), ctypes.c_size_t(COUNT))

    def add(self, number):
        call("cuCtxSetCurrent", self.context)
        values = array.array("i", bytes(4 * COUNT))
        place = ctypes.c_void_p(values.buffer_info()[0])
        call("cuMemcpyDtoH_v2", place, self.address, ctypes.c_size_t(4 * COUNT))
        for index in range(COUNT):
            values[index] += number
        call("cuMemcpyHtoD_v2", self.address, place, ctypes.c_size_t(4 * COUNT))
        return sum(values)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        try:
            numbers.add(0)
            self.answer(200, {"ready": True})
        except RuntimeError as error:
            self.answer(503, {"error": str(error)})

    def do_POST(self):
        try:
            request = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
            self.answer(200, {"sum": numbers.add(int(request.get("add", 0)))})
        except (ValueError, AttributeError) as error:
            self.answer(400, {"error": str(error)})
        except RuntimeError as error:
            self.answer(503, {"error": str(error)})

    def log_message(self, *_):
        pass


numbers = Numbers()
address = (os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000")))
http.server.HTTPServer(address, Handler).serve_forever()
