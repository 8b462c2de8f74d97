"""What the machine says of its memory and of its GPU."""

import os
import pathlib
import subprocess

# The numbers of those that a script has (server.py), as the driver counts; none where it has all.
_NAMED = [int(number) for number in (os.environ.get("EVALUATION_GPUS") or "").split(",") if number]
FIRST_GPU = _NAMED[0] if _NAMED else 0


def memory():
    """/proc/meminfo in bytes, with "Used": what is not available. A virtual machine's MemTotal may grow as it is used."""
    lines = (line.split() for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    fields = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
    return {**fields, "Used": fields["MemTotal"] - fields["MemAvailable"]}


def store_bytes(server_pid):
    """Memory in the host store's slabs, from the files of shared memory that the server holds."""
    sizes = {}
    for entry in pathlib.Path(f"/proc/{server_pid}/fd").iterdir():
        try:
            if os.readlink(entry).startswith("/memfd:torpor-store"):
                status = os.stat(entry)
                sizes[status.st_ino] = status.st_blocks * 512
        except FileNotFoundError:
            continue  # Closed meanwhile.
    return sum(sizes.values())


def private_bytes(pid):
    """Memory that a process shares with nobody; 0 if it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def opens_gpu(pid):
    """Whether a process has a device of NVIDIA's driver open: nobody has a context without."""
    # Where the GPU is hidden, its devices' names lead to /dev/null.
    nothing = os.stat("/dev/null").st_rdev
    return any(os.readlink(entry).startswith("/dev/nvidia") and os.stat(entry).st_rdev != nothing
               for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir())


def _nvidia_smi(*query):
    try:
        done = subprocess.run(["nvidia-smi", *query, "--format=csv,noheader,nounits"], capture_output=True, text=True,
                              timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines()] if not done.returncode else None


def card_used_bytes(gpu=FIRST_GPU):
    """GPU memory in use by everybody, contexts and code included; None if nvidia-smi does not say."""
    rows = _nvidia_smi("--query-gpu=memory.used")
    return int(rows[gpu][0]) << 20 if rows and rows[gpu][0].isdigit() else None


def card_total_bytes(gpu=FIRST_GPU):
    """GPU memory that there is; None if nvidia-smi does not say."""
    rows = _nvidia_smi("--query-gpu=memory.total")
    return int(rows[gpu][0]) << 20 if rows and rows[gpu][0].isdigit() else None


def gpus():
    """How many GPUs a script has: those that $EVALUATION_GPUS names, or all that nvidia-smi knows."""
    return len(_NAMED) or len(_nvidia_smi("--query-gpu=index") or ())


def gpu_numbers(count):
    """The numbers of the first so many of them, as the driver counts."""
    if _NAMED and count > len(_NAMED):
        raise SystemExit(f"{count} GPUs are asked for, and EVALUATION_GPUS names {len(_NAMED)}")
    return _NAMED[:count] if _NAMED else list(range(count))


def gpu_flags(count):
    """Of a server that has them."""
    return ("--gpus", ",".join(map(str, gpu_numbers(count))))


def processes_on_gpu(gpu=FIRST_GPU):
    """The pids that nvidia-smi lists; None if it does not list any."""
    rows = _nvidia_smi("-i", str(gpu), "--query-compute-apps=pid,used_memory")
    return [int(row[0]) for row in rows if row[0].isdigit()] or None if rows else None


def size(text):
    """Bytes of a text such as 4GiB."""
    for unit, shift in (("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)):
        if text.endswith(unit):
            return int(float(text.removesuffix(unit)) * (1 << shift))
    return int(text.removesuffix("B"))
