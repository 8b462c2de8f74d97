"""What a server with `--log debug` says of evictions and swap-ins."""

import json
import pathlib
import re
import threading

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
EVENT = re.compile(r"\b(swapped in|evicted) (client=.*)")
FIELD = re.compile(r'(\w+)=("[^"]*"|\S+)')


def parse(line):
    """{"event": "swapped in" or "evicted", "function": ..., and numbers}; None for any other line."""
    found = EVENT.search(COLOUR.sub("", line))
    if not found:
        return None
    event = {"event": found[1]}
    for key, value in FIELD.findall(found[2]):
        value = value.strip('"')
        event[key] = value if key == "function" or not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value) else json.loads(value)
    return event


class Events:
    """Reads what was added to a log, from several threads too."""

    def __init__(self, log):
        self.log = pathlib.Path(log)
        self.position = 0
        self.unfinished = ""
        self.lock = threading.Lock()
        self.swaps = {}

    def read(self):
        """The events since the last call. `swaps` then has the number of swap-ins so far, by function."""
        with self.lock:
            with open(self.log, errors="replace") as file:
                file.seek(self.position)
                added = file.read()
                self.position = file.tell()
            *lines, self.unfinished = (self.unfinished + added).split("\n")
            events = [event for event in map(parse, lines) if event]
            for event in events:
                if event["event"] == "swapped in":
                    self.swaps[event.get("function")] = self.swaps.get(event.get("function"), 0) + 1
            return events

    def last(self, function):
        """Of this function since the last call, the last of each kind: {"swapped in": ..., "evicted": ...}."""
        return {event["event"]: event for event in self.read() if event.get("function") == function}

    def swaps_of(self, function):
        """How often a function was swapped in so far."""
        self.read()
        return self.swaps.get(function, 0)
