"""How scripts with many processes are run beside what measuring.py has: their time, and their end before it."""

import pathlib
import signal
import time

import measuring


def add_common_arguments(parser, seconds, rounds=None):
    """The flags that every such script has."""
    measuring.add_common_arguments(parser, rounds)
    parser.add_argument("--seconds", type=float, default=seconds,
                        help="begin nothing new after so long, and report what there is")
    parser.add_argument("--output", default=None, metavar="DIR", help="for result files; default: the folder of the logs")


def folders(arguments, name):
    """The folders for logs and for results, which are there."""
    logs = measuring.folder_of_logs(arguments, name)
    output = pathlib.Path(arguments.output or logs)
    output.mkdir(parents=True, exist_ok=True)
    return logs, output


class Time:
    """How much of a script's time is left."""

    def __init__(self, seconds):
        self.begin = time.monotonic()
        self.end = self.begin + seconds

    def is_over(self):
        return time.monotonic() >= self.end

    def passed(self):
        """In seconds."""
        return time.monotonic() - self.begin


def interruptible():
    """SIGTERM (a time-out) is like Ctrl-C: a KeyboardInterrupt, so that what was measured is still reported."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
