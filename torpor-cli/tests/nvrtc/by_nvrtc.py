"""The wheel's NVRTC, and work that is done once for each set of options in several threads: what the scripts here have in common."""
import ctypes
import glob
import hashlib
import os
import sys
import sysconfig
import threading

LIBRARIES = sysconfig.get_path("purelib") + "/nvidia/cu13/lib/"
# NVRTC finds it by name once it is loaded, as PyTorch does.
builtins = [ctypes.CDLL(path) for path in glob.glob(LIBRARIES + "libnvrtc-builtins.so.13.*")]
nvrtc = ctypes.CDLL(LIBRARIES + "libnvrtc.so.13")


def ok(name, *arguments):
    """A function of NVRTC, which must succeed."""
    code = getattr(nvrtc, name)(*arguments)
    assert code == 0, (name, code)


def made(program, what):
    """What a compiled program has become: bytes, of which there may be none."""
    length = ctypes.c_size_t()
    ok(f"nvrtcGet{what}Size", program, ctypes.byref(length))
    code = ctypes.create_string_buffer(length.value)
    if length.value:
        ok(f"nvrtcGet{what}", program, code)
    return code.raw


def texts(words):
    """As C has them."""
    return (ctypes.c_char_p * len(words))(*words)


def short_hash(code):
    """To compare by."""
    return hashlib.blake2s(code, digest_size=8).hexdigest()


def for_each_set(work):
    """Prints a line for each set of options of the argument (`;` between sets), in `THREADS` threads: what `work` makes of it."""
    sets = sys.argv[1].split(";")
    lines = [None] * len(sets)
    left = iter(range(len(sets)))
    lock = threading.Lock()

    def take():
        while True:
            with lock:
                at = next(left, None)
            if at is None:
                return
            lines[at] = work(sets[at])

    threads = [threading.Thread(target=take) for _ in range(int(os.environ.get("THREADS", "1")))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for options, line in zip(sets, lines):
        print(options, line)
