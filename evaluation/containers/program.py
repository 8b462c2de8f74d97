"""Runs in a container: prints what it sees there, as JSON, then computes with PyTorch for each line that it is told.

`arange` or `network`: what is computed. The second needs kernels, which a simulated GPU does not run. Knows nothing of Torpor but where
CDI files put the library, to tell it from a driver.
"""

import errno
import json
import os
import re
import sys

LIBRARY = "/opt/torpor/lib/libtorpor_intercept.so"
FOLDERS = ["/usr/lib", "/usr/lib64", "/usr/local"]
DRIVER = re.compile(r"lib(cuda|nvidia-ml|nvidia-ptxjitcompiler|nvidia-gpucomp)\.so\.[\d.]+")


def status(field):
    """A line of what the kernel says of this process."""
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(field + ":"))


def driver_files():
    """Files with a driver's name that are not Torpor's library."""
    library = os.stat(LIBRARY)
    found = [os.path.join(folder, name) for top in FOLDERS for folder, _, names in os.walk(top) for name in names
             if DRIVER.fullmatch(name)]
    return [path for path in found if not os.path.exists(path) or not os.path.samestat(os.stat(path), library)]


def can_write(path):
    """Whether a file can be made in a folder: None if not, for the file system is read-only."""
    try:
        with open(os.path.join(path, "written"), "w"):
            return True
    except OSError as error:
        return None if error.errno == errno.EROFS else error.strerror


def mapped():
    """Libraries with a driver's name or the library's that this process has mapped."""
    with open("/proc/self/maps") as file:
        paths = {line.split(maxsplit=5)[5].strip() for line in file if line.count("/")}
    # The descriptors that the server gave are no files.
    files = (path for path in paths if not path.startswith("/memfd:"))
    return sorted(path for path in files if DRIVER.fullmatch(os.path.basename(path)) or "torpor" in path)


def shared_memory():
    """How large /dev/shm is, and how much of it is in use."""
    space = os.statvfs("/dev/shm")
    return [space.f_blocks * space.f_frsize, (space.f_blocks - space.f_bfree) * space.f_frsize]


def listing(path):
    """What is in a folder; nothing if it is not there."""
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def environment():
    """What this process was started with: Python adds to it."""
    with open("/proc/self/environ") as file:
        return dict(variable.split("=", 1) for variable in file.read().split("\0") if variable)


def seen():
    """What is there."""
    with open("/proc/self/mountinfo") as file:
        functions = sorted({line.split()[3] for line in file if "/functions/" in line.split()[3]})
    return {
        "environment": environment(),
        "devices": listing("/dev"),
        "driver_in_proc": listing("/proc/driver/nvidia"),
        "driver_files": driver_files(),
        "function": listing("/run/torpor"),
        "functions_mounted": functions,
        "run": listing("/run"),
        "tmp": listing("/tmp"),
        "written": {path: can_write(path) for path in ("/", "/usr", "/etc", "/tmp", "/run", "/run/torpor", "/sys")},
        "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
        "interfaces": listing("/sys/class/net"),
        "capabilities": [int(status(field), 16) for field in ("CapEff", "CapPrm", "CapBnd")],
        "no_new_privileges": status("NoNewPrivs") == "1",
        "user": [os.getuid(), os.getgid()],
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in ("user", "mnt", "pid", "ipc", "uts", "net")},
    }


def arange(device):
    """Numbers that go there and come back, so many that /dev/shm would not have room for them."""
    import torch

    numbers = torch.arange(32 << 20, dtype=torch.int32)
    return [numbers.to(device).cpu().sum(dtype=torch.int64).item()]


def network(device):
    """A small network's output, of convolutions and products, which use cuDNN and cuBLAS."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(5)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten(),
                                 torch.nn.Linear(1024, 10), torch.nn.Softmax(1))
    pictures = torch.rand(8, 3, 64, 64)
    with torch.no_grad():
        return layers.to(device)(pictures.to(device)).cpu().flatten().tolist()


def answer(work):
    """What the GPU computes and what the CPU does, and what the process has by then."""
    import torch

    compute = {"arange": arange, "network": network}[work]
    return {"gpu": compute("cuda"), "cpu": compute("cpu"), "name": torch.cuda.get_device_name(), "gpus": torch.cuda.device_count(),
            "mapped": mapped(), "shared_memory": shared_memory()}


print(json.dumps(seen()), flush=True)
for line in sys.stdin:
    print(json.dumps(answer(line.strip())), flush=True)
