"""The side of a program that is told what to do: a command per line comes in, a line of JSON goes out.

The first line says that the program is ready. A command's answer is what its function returned; an exception becomes
`{"error": ...}` and the program goes on. `quit` or the end of the input ends it. Whatever else writes to standard output
(a library, the driver) comes out on standard error. Import this first.
"""

import json
import os
import sys

_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def _say(fields):
    _answers.write(json.dumps(fields) + "\n")
    _answers.flush()


def answer(commands, **ready):
    """Says that the program is ready, with these fields, and obeys until it is told to end."""
    _say({"ready": True, "pid": os.getpid(), **ready})
    for line in sys.stdin:
        words = line.split()
        if not words:
            continue
        if words[0] == "quit":
            break
        try:
            _say(commands[words[0]](*words[1:]))
        except Exception as error:  # Whoever asked must know, whatever it is.
            _say({"error": f"{type(error).__name__}: {error}"})
