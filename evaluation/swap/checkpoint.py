"""Takes the GPU from a process by the driver's process checkpoint, gives it back, and says how long each step took.

    checkpoint.py PID [out | back]

Prints a line of JSON: {"lock_ms", "checkpoint_ms", "restore_ms", "unlock_ms"}, of these the first two or the last two, or {"error"}. A process of its own, because
a driver that hangs here must not hang the measurement. Source: cuda.h of CUDA 13, cuCheckpointProcess*; their arguments'
structures may be null.
"""

import ctypes
import json
import sys
import time

STEPS = {"out": ("Lock", "Checkpoint"), "back": ("Restore", "Unlock"), "all": ("Lock", "Checkpoint", "Restore", "Unlock")}


def main():
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        print(json.dumps({"error": str(error)}))
        return
    pid = ctypes.c_int(int(sys.argv[1]))
    figures = {}

    def call(name, *arguments):
        begin = time.perf_counter()
        code = getattr(driver, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            driver.cuGetErrorName(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {code} {(text.value or b'').decode()}")
        return (time.perf_counter() - begin) * 1e3

    try:
        call("cuInit", 0)
        for step in STEPS[sys.argv[2] if len(sys.argv) > 2 else "all"]:
            figures[f"{step.lower()}_ms"] = call(f"cuCheckpointProcess{step}", pid, None)
    except (RuntimeError, AttributeError) as error:
        # A process that stays locked would never end; this fails if it is not.
        getattr(driver, "cuCheckpointProcessUnlock", lambda *_: None)(pid, None)
        figures = {"error": str(error)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
