"""One process that locks host memory of one kind and copies it to the GPU in several ways; figures as JSON. See `run`.

    program.py KIND GIB PIECE_MIB COPY_MIB
"""

import concurrent.futures
import ctypes
import json
import mmap
import os
import pathlib
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from driver_api import allocate, call, enter, made  # noqa: E402

MIB = 1 << 20
HUGE_PAGE = 2 * MIB
# Of a slab of the host store.
SLAB = 256 * MIB
# What a thread of the server faults in at a time, and how many do.
FAULTED, FAULTERS = 4 * MIB, 8
# Source: asm-generic/mman-common.h.
POPULATE_WRITE, COLLAPSE = 23, 25
NOT_TIMED = 2

libc = ctypes.CDLL(None, use_errno=True)
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def advise(address, size, advice):
    """madvise(2); whether it did."""
    return libc.madvise(address, size, advice) == 0


def fault_in(address, collapse):
    """What the server does for a piece of a slab."""
    if collapse:
        for page in range(address, address + FAULTED, HUGE_PAGE):
            advise(page, mmap.PAGESIZE, POPULATE_WRITE)
            advise(page, HUGE_PAGE, COLLAPSE)
    if not advise(address, FAULTED, POPULATE_WRITE):
        ctypes.memset(address, 0, FAULTED)


class Memory:
    """Memory of one kind, every page there."""

    def __init__(self, kind, size):
        self.mappings = []
        self.slabs = [self._mapped(kind, min(SLAB, size - at)) for at in range(0, size, SLAB)]
        pieces = [at for address, length in self.slabs for at in range(address, address + length, FAULTED)]
        with concurrent.futures.ThreadPoolExecutor(FAULTERS) as threads:
            list(threads.map(lambda at: fault_in(at, kind == "slabs"), pieces))

    def _mapped(self, kind, size):
        if kind == "private":
            mapping = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            mapping.madvise(mmap.MADV_HUGEPAGE)
        else:
            file = os.memfd_create("slab")
            os.ftruncate(file, size + HUGE_PAGE)
            mapping = mmap.mmap(file, size + HUGE_PAGE)
            os.close(file)
        self.mappings.append(mapping)
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        return -(-address // HUGE_PAGE) * HUGE_PAGE, size

    def pieces(self, size):
        """A list of pieces for each slab."""
        return [[(address + at, min(size, length - at)) for at in range(0, length, size)] for address, length in self.slabs]


def huge_bytes():
    """Memory of this process that is mapped in huge pages. Source: proc_pid_smaps(5)."""
    text = pathlib.Path("/proc/self/smaps_rollup").read_text()
    return sum(int(found) * 1024 for found in re.findall(r"(?:AnonHugePages|ShmemPmdMapped):\s+(\d+)", text))


class Copies:
    """Times copies to one target by events of the GPU."""

    def __init__(self, size):
        self.target = allocate(size)
        self.streams = [made("cuStreamCreate", 1) for _ in range(2)]
        self.began, self.ended, self.passed = made("cuEventCreate", 0), made("cuEventCreate", 0), made("cuEventCreate", NOT_TIMED)

    def rate(self, pieces, streams=1, events=False):
        """GB/s over pieces, whose copies go to streams in turn; with events, one is recorded behind each."""
        used = self.streams[:streams]
        call("cuEventRecord", self.began, used[0])
        call("cuStreamWaitEvent", used[-1], self.began, 0)
        done = 0
        for number, (address, size) in enumerate(pieces):
            stream = used[number % streams]
            call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(self.target + done), ctypes.c_void_p(address), ctypes.c_size_t(size), stream)
            done += size
            if events:
                call("cuEventRecord", self.passed, stream)
        call("cuEventRecord", self.passed, used[-1])
        call("cuStreamWaitEvent", used[0], self.passed, 0)
        call("cuEventRecord", self.ended, used[0])
        call("cuEventSynchronize", self.ended)
        milliseconds = ctypes.c_float()
        call("cuEventElapsedTime", ctypes.byref(milliseconds), self.began, self.ended)
        return done / milliseconds.value / 1e6


def main():
    kind, size, piece, copy = sys.argv[1], *(int(float(text) * MIB) for text in sys.argv[2:])
    enter()
    began = time.monotonic()
    memory = Memory(kind, size)
    made_after = time.monotonic() - began
    began = time.monotonic()
    for slab in memory.pieces(piece):
        for address, length in slab:
            call("cuMemHostRegister_v2", ctypes.c_void_p(address), ctypes.c_size_t(length), 0)
    locked_after = time.monotonic() - began
    copies = Copies(size)
    by_slab = memory.pieces(min(piece, copy))
    whole = [each for slab in by_slab for each in slab]
    copies.rate(whole)
    rates = sorted(map(copies.rate, by_slab))
    print(json.dumps({
        "huge": huge_bytes() / size, "made_s": made_after, "locked_s": locked_after, "alone": copies.rate(whole),
        "events": copies.rate(whole, events=True), "two_streams": copies.rate(whole, streams=2, events=True),
        "slowest_slab": rates[0], "median_slab": rates[len(rates) // 2], "fastest_slab": rates[-1],
        "backwards": copies.rate(whole[::-1]),
    }))
    # The driver unlocks what it must at the end.
    sys.stdout.flush()
    os._exit(0)


main()
