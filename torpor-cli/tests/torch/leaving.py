"""Taking this program's memory off its GPU, in the middle of what it does."""
import ctypes
import os
import subprocess

turn = 0


def away():
    """Runs the next of the commands that whoever started this program gave it for that, if any, when all work is done."""
    global turn
    assert ctypes.CDLL("libcuda.so.1").cuCtxSynchronize() == 0
    if "TORPOR_TEST_AWAY" not in os.environ:
        return
    commands = os.environ["TORPOR_TEST_AWAY"].split("\n")
    subprocess.run(commands[turn % len(commands)].split(), check=True, env={**os.environ, "LD_PRELOAD": ""})
    turn += 1
