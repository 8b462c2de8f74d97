"""Counts the system calls of a process, all its threads, between two marks, by ptrace(2) (x86-64 Linux 5.3 or newer).

strace(1) is not needed. The mark is getppid(2). Only entries are counted.
"""

import collections
import ctypes
import os
import signal

SYS_GETPPID = 110
NAMES = {0: "read", 1: "write", 3: "close", 7: "poll", 9: "mmap", 10: "mprotect", 11: "munmap", 12: "brk", 16: "ioctl",
         24: "sched_yield", 28: "madvise", 35: "nanosleep", 39: "getpid", 186: "gettid", 202: "futex", 228: "clock_gettime",
         230: "clock_nanosleep", 232: "epoll_wait", 449: "futex_waitv"}

# ptrace(2), linux/ptrace.h
SYSCALL, DETACH, SEIZE, INTERRUPT, GET_SYSCALL_INFO = 24, 17, 0x4206, 0x4207, 0x420e
O_TRACESYSGOOD, O_TRACECLONE = 1, 8
EVENT_CLONE, EVENT_STOP = 3, 128
INFO_ENTRY = 1
WALL = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, thread, address=0, data=0):
    """False if the thread has ended meanwhile."""
    if libc.ptrace(request, thread, address, data) >= 0:
        return True
    error = ctypes.get_errno()
    if error == 3:  # ESRCH
        return False
    raise OSError(error, f"ptrace({request}, {thread}): {os.strerror(error)}")


class SyscallInfo(ctypes.Structure):
    """ptrace_syscall_info: the beginning, and its longest part."""
    _fields_ = [("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32), ("ip", ctypes.c_uint64),
                ("sp", ctypes.c_uint64), ("number", ctypes.c_uint64), ("rest", ctypes.c_uint64 * 8)]


def entered(thread):
    """The number of the system call that a thread is about to make, or None."""
    info = SyscallInfo()
    if not ptrace(GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info)):
        return None
    return info.number if info.op == INFO_ENTRY else None


def attach(process):
    """Attaches to every thread that there is."""
    known = set()
    while fresh := {int(name) for name in os.listdir(f"/proc/{process}/task")} - known:
        for thread in fresh:
            if ptrace(SEIZE, thread, 0, O_TRACESYSGOOD | O_TRACECLONE):
                ptrace(INTERRUPT, thread)
        known |= fresh
    return known


def count(process, go):
    """Attaches, calls `go` when every thread is followed, and gives {number: count} between the first two marks."""
    waiting = attach(process)
    counts, marks = collections.Counter(), 0
    while marks < 2:
        thread, status = os.waitpid(-1, WALL)
        if not os.WIFSTOPPED(status):
            if thread == process:
                raise RuntimeError(f"the process ended with status {status:#x} before its second mark")
            continue
        stop, event, deliver = os.WSTOPSIG(status), status >> 16, 0
        if stop == signal.SIGTRAP | 0x80:
            number = entered(thread)
            if number == SYS_GETPPID:
                marks += 1
            elif number is not None and marks == 1:
                counts[number] += 1
        elif event == 0:
            deliver = stop
        # At the second mark this thread is in a stop, which detaching needs.
        ptrace(DETACH if marks == 2 else SYSCALL, thread, 0, deliver)
        if waiting:
            waiting.discard(thread)
            if not waiting:
                go()
    detach(process)
    return counts


def detach(process):
    """From every thread: each has to stop for it."""
    waiting = {thread for thread in map(int, os.listdir(f"/proc/{process}/task")) if ptrace(INTERRUPT, thread)}
    while waiting:
        thread, status = os.waitpid(-1, WALL)
        if os.WIFSTOPPED(status):
            stop, event = os.WSTOPSIG(status), status >> 16
            is_own = event != 0 or stop == signal.SIGTRAP | 0x80
            ptrace(DETACH, thread, 0, 0 if is_own else stop)
        waiting.discard(thread)


def named(counts):
    """For people: most frequent first."""
    return ", ".join(f"{NAMES.get(number, number)} {times}" for number, times in counts.most_common()) or "none"
