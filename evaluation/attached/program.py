"""A client for run: it has a little memory on the GPU, and does what its standard input says.

    program.py NUMBER

ready once it has used its memory; then, for each line, `busy S`: for so many seconds it fills the memory, reads it back and compares, and
then says busy ANSWERS, how often all was right. Plain CUDA driver API, so that it runs on a simulated GPU too.
"""
import array
import ctypes
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from driver_api import allocate, call, enter  # noqa: E402

WORDS = 1 << 14
# Between an answer and the next request.
PAUSE_S = 0.1


def answer(memory, value):
    """Fills the memory with a value, and looks whether it came back."""
    call("cuMemsetD32_v2", ctypes.c_uint64(memory), value, ctypes.c_size_t(WORDS))
    got = array.array("I", bytes(4 * WORDS))
    call("cuMemcpyDtoH_v2", ctypes.c_void_p(got.buffer_info()[0]), ctypes.c_uint64(memory), ctypes.c_size_t(4 * WORDS))
    assert got == array.array("I", [value]) * WORDS, "another's memory"


def main():
    number = int(sys.argv[1])
    enter()
    memory = allocate(4 * WORDS)
    answer(memory, number)
    print("ready", flush=True)
    for line in sys.stdin:
        end, answers = time.monotonic() + float(line.split()[1]), 0
        while time.monotonic() < end:
            answer(memory, number + answers)
            answers += 1
            time.sleep(PAUSE_S)
        print("busy", answers, flush=True)


if __name__ == "__main__":
    main()
