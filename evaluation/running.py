"""How the scripts are run: their common flags, their time, and their end before it."""

import pathlib
import signal
import tempfile
import time


def add_common_arguments(parser, seconds):
    """The flags that every script has."""
    parser.add_argument("--seconds", type=float, default=seconds,
                        help="begin nothing new after so long, and report what there is")
    parser.add_argument("--logs", default=None, metavar="DIR", help="keep what every process printed here")
    parser.add_argument("--output", default=None, metavar="DIR", help="for result files; default: the folder of the logs")
    parser.add_argument("--simulated", action="store_true",
                        help="without a GPU: try the script itself; models are copies then, and `native` is remoted too")


def folders(arguments, name):
    """The folders for logs and for results, which are there."""
    logs = pathlib.Path(arguments.logs or tempfile.mkdtemp(prefix=f"torpor-{name}-"))
    output = pathlib.Path(arguments.output or logs)
    logs.mkdir(parents=True, exist_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    return logs, output


def server_options(arguments):
    """Of `torpor serve`: evictions and swap-ins are in its log."""
    return ["--log", "debug", *(["--driver", "simulated"] if arguments.simulated else [])]


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
