"""Starts itself with other environments, in each of the ways in which programs do that; every child must find the GPU."""
import ctypes
import os
import subprocess
import sys
import threading


def work():
    cuda = ctypes.CDLL("libcuda.so.1")
    code = cuda.cuInit(0)
    assert code == 0, code
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    assert nvml.nvmlInit_v2() == 0


if sys.argv[1:] == ["work"]:
    work()
    print("works", flush=True)
    sys.exit()
work()
me = [sys.executable, os.path.abspath(__file__), "work"]
before = dict(os.environ)
c = ctypes.CDLL(None)


def waited(process):
    _, status = os.waitpid(process, 0)
    assert status == 0, status


def forked(run):
    process = os.fork()
    if process == 0:
        try:
            run()
        finally:
            os._exit(7)
    waited(process)


for environment in ({}, {"PATH": "/bin"}, {"LD_PRELOAD": ""}, {str(n): "x" for n in range(700)}):
    assert subprocess.run(me, env=environment, capture_output=True, text=True, check=True).stdout == "works\n"
waited(os.posix_spawn(me[0], me, {}))
waited(os.posix_spawnp(me[0], me, {}))
forked(lambda: os.execve(me[0], me, {}))
forked(lambda: os.execvpe(me[0], me, {}))
file = os.open(me[0], os.O_RDONLY)
forked(lambda: os.execve(file, me, {}))
assert subprocess.run(["env", "-i", *me], capture_output=True, text=True, check=True).stdout == "works\n"
shell = subprocess.run(["sh", "-c", 'env -i sh -c "env -i \\"\\$@\\"" - "$@"', "-", *me], capture_output=True, text=True)
assert (shell.returncode, shell.stdout) == (0, "works\n"), shell
failed = []


def start():
    try:
        for _ in range(5):
            subprocess.run(me, env={}, check=True, stdout=subprocess.DEVNULL)
    except BaseException as error:
        failed.append(error)


threads = [threading.Thread(target=start) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failed, failed
seen = subprocess.run(["env"], env={"A": "1"}, capture_output=True, text=True, check=True).stdout.splitlines()
assert seen[0] == "A=1" and {line.split("=")[0] for line in seen} == {"A", "LD_PRELOAD", "LD_LIBRARY_PATH", "TORPOR_SERVER"}
assert dict(os.environ) == before
print("children passed", flush=True)
