"""A container without an engine: namespaces in which a command sees what a container with a device of a CDI file would.

    unshare --mount --propagation private --pid --fork --kill-child --ipc --uts --net \
        python3 container.py --cdi FILE --device NAME --layout docker|restricted --scratch DIR [--env NAME=VALUE] -- COMMAND...

The image is this machine's root file system without its other mounts, without NVIDIA's driver and without what is in /tmp and /run:
an overlay of which the command gets a read-only view. To it comes what the file says of the device, in the order of an engine, and the
environment is the NAME=VALUE of the image and the file's, nothing else. /dev has an engine's devices, /dev/shm 64 MiB, the network
no interface but its own. `docker` is root with the capabilities that Docker leaves it; `restricted` is a user of a user namespace of
its own, without capabilities, who can get none. Two things of an engine are missing: its seccomp profile, and its devices' cgroup,
in place of which no device file counts that the command could make. Needs root, and overlayfs.
"""

import argparse
import ctypes
import json
import os
import pathlib
import re
import subprocess
import sys

# Bits of the capabilities that Docker gives a container by default.
DOCKERS_CAPABILITIES = 0xA80425FB
LAST_CAPABILITY = pathlib.Path("/proc/sys/kernel/cap_last_cap")

# The user of a restricted container, there and on the machine.
USER, USER_OUTSIDE = 1000, 101000

# What a driver's package puts beside what programs bring along.
DRIVER_FILE = re.compile(r"(lib(cuda|cudadebugger|nvcuvid|nvoptix|nvidia-\S+|\S+_nvidia)\.so(\.\S+)?|nvidia-\S+)")
DRIVER_FOLDERS = ["usr/lib", "usr/lib64", "usr/bin", "usr/local"]
# These are of the image: they link programs, and are no driver.
NOT_DRIVER = {"stubs", "site-packages", "dist-packages"}

DEVICES = ["null", "zero", "full", "random", "urandom", "tty"]
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}
# What engines hide of the machine, and NVIDIA's: a file, or a folder.
HIDDEN = ["acpi", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats", "driver/nvidia",
          "driver/nvidia-caps", "driver/nvidia-nvlink", "driver/nvidia-nvswitch", "driver/nvidia-uvm"]

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER = 0x10000000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38


def succeed(status, what):
    """Of a function of the C library."""
    if status:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(*arguments):
    """The command."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def place_for(source, target):
    """Makes the file or folder that is mounted over."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def edits_of(file, device):
    """What a CDI file gives a container with the device: variables and mounts."""
    spec = json.loads(pathlib.Path(file).read_text())
    kind, name = device.split("=")
    found = [one for one in spec["devices"] if spec["kind"] == kind and one["name"] == name]
    if len(found) != 1:
        sys.exit(f"{file} has {len(found)} devices {device}")
    edits = [found[0]["containerEdits"], spec.get("containerEdits", {})]
    unknown = {key for edit in edits for key in edit} - {"env", "mounts"}
    if unknown:
        sys.exit(f"{file} has {unknown}, which are not done here")
    return [sum((edit.get(kind, []) for edit in edits), []) for kind in ("env", "mounts")]


def image(scratch):
    """Mounts the root of the image, which can be written until the container is there."""
    mount("-t", "tmpfs", "tmpfs", scratch)
    upper, work, root = (scratch / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir()
    mount("-t", "overlay", "overlay", "-o", f"nodev,lowerdir=/,upperdir={upper},workdir={work}", root)
    # From here on files are deleted: of the image alone.
    assert root.stat().st_dev != os.stat("/").st_dev
    for folder in DRIVER_FOLDERS:
        for at, folders, files in os.walk(root / folder):
            folders[:] = [name for name in folders if name not in NOT_DRIVER]
            for name in filter(DRIVER_FILE.fullmatch, files):
                os.remove(os.path.join(at, name))
    # Whoever it runs as may read its interpreter, as in any image.
    for folder in pathlib.Path(os.path.realpath(sys.executable)).parents:
        inside = root / folder.relative_to("/")
        inside.chmod(inside.stat().st_mode | 0o5)
    for folder in ("tmp", "run"):
        mount("-t", "tmpfs", "-o", "nosuid,nodev,mode=755", "tmpfs", root / folder)
    return root


def kernel_file_systems(root):
    """Mounts /proc, /sys and /dev."""
    mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", root / "proc")
    mount("-t", "sysfs", "-o", "ro,nosuid,nodev,noexec", "sysfs", root / "sys")
    device = root / "dev"
    mount("-t", "tmpfs", "-o", "nosuid,nodev,mode=755,size=64k", "tmpfs", device)
    for name in DEVICES:
        (device / name).touch()
        mount("--bind", f"/dev/{name}", device / name)
    for name, target in LINKS.items():
        (device / name).symlink_to(target)
    for name in ("pts", "shm", "mqueue"):
        (device / name).mkdir()
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=0620", "devpts", device / "pts")
    mount("-t", "tmpfs", "-o", "nosuid,nodev,noexec,size=64m,mode=1777", "shm", device / "shm")
    for path in [root / "proc" / name for name in HIDDEN] + [root / "sys/firmware"]:
        if path.is_dir():
            mount("-t", "tmpfs", "-o", "ro", "tmpfs", path)
        elif path.exists():
            mount("--bind", "/dev/null", path)


def inject(mounts, root):
    """Mounts what the CDI file says."""
    for one in mounts:
        source, target = pathlib.Path(one["hostPath"]), root / one["containerPath"].lstrip("/")
        options = [option for option in one["options"] if option not in ("rbind", "bind", "rprivate")]
        place_for(source, target)
        mount("--rbind", source, target)
        mount("-o", ",".join(["remount", "bind", *options]), target)


def enter(root):
    """Makes the image's root that of this process, and what it must not write read-only."""
    for folder in ("", "tmp", "run"):
        mount("-o", "remount,bind,ro", root / folder)
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "."], check=True)
    subprocess.run(["umount", "--lazy", "."], check=True)
    os.chdir("/")


def own_user_namespace():
    """Goes into a user namespace in which there is one user, and becomes that user."""
    ready, tell = os.pipe()
    me = os.getpid()
    # Who writes the map has to be of the machine's namespace still.
    writer = os.fork()
    if not writer:
        os.read(ready, 1)
        for kind in ("gid", "uid"):
            pathlib.Path(f"/proc/{me}/{kind}_map").write_text(f"{USER} {USER_OUTSIDE} 1\n")
        os._exit(0)
    succeed(LIBC.unshare(CLONE_NEWUSER), "a user namespace")
    os.write(tell, b"!")
    if os.waitpid(writer, 0)[1]:
        sys.exit("the users of the namespace could not be named")
    os.close(ready)
    os.close(tell)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def confine(layout, last_capability):
    """Gives up what the container has not."""
    kept = DOCKERS_CAPABILITIES if layout == "docker" else 0
    if layout == "restricted":
        own_user_namespace()
    for capability in range(last_capability + 1):
        if not kept >> capability & 1:
            succeed(LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "dropping a capability")
    if layout == "restricted":
        succeed(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cdi", required=True, metavar="FILE")
    parser.add_argument("--device", required=True, metavar="NAME", help="such as torpor.dev/gpu=classify")
    parser.add_argument("--layout", required=True, choices=["docker", "restricted"])
    parser.add_argument("--scratch", required=True, type=pathlib.Path, metavar="DIR", help="an empty folder")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the image")
    parser.add_argument("--volume", action="append", default=[], metavar="DIR",
                        help="a folder of another file system that is of the image, too, at the same place")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    variables, mounts = edits_of(given.cdi, given.device)
    volumes = [{"hostPath": folder, "containerPath": folder, "options": ["ro", "nosuid", "nodev"]} for folder in given.volume]
    last_capability = int(LAST_CAPABILITY.read_text())
    root = image(given.scratch)
    kernel_file_systems(root)
    inject(volumes + mounts, root)
    enter(root)
    confine(given.layout, last_capability)
    # A variable of the device stands in the place of the image's.
    environment = dict(variable.split("=", 1) for variable in given.env + variables)
    os.execvpe(given.command[0], given.command, environment)


if __name__ == "__main__":
    main()
