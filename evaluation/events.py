"""What a server tells of its clients (`torpor events`), kept as it comes."""

import json
import subprocess
import threading

# How long an event may be on its way from who saw it.
PATIENCE_S = 10


class Events:
    """Follows a server as long as a `with` lasts. An event is {"event": its kind, "function", "unix_us", ...}, see event.proto."""

    def __init__(self, server):
        self.server = server
        self.heard = []
        self.changed = threading.Condition()
        self.given = 0
        self.is_over = False

    def __enter__(self):
        self.process = subprocess.Popen([self.server.torpor, "events", "--follow", "--json", "--directory",
                                         self.server.directory], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._listen, daemon=True).start()
        # What happens before the first line is not told of: that a worker has started always is.
        with self.changed:
            if not self.changed.wait_for(lambda: self.heard or self.is_over, PATIENCE_S) or not self.heard:
                raise RuntimeError("`torpor events` says nothing")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def forget(self):
        """What has come so far is not given any more."""
        with self.changed:
            self.given = len(self.heard)

    def until(self, kind, function):
        """The function's events since the last time, up to the first of this kind, for which it waits."""
        with self.changed:
            self.changed.wait_for(lambda: self._find(kind, function) is not None or self.is_over, PATIENCE_S)
            at = self._find(kind, function)
            if at is None:
                raise RuntimeError(f"no event {kind} of {function} within {PATIENCE_S} s")
            since, self.given = self.heard[self.given:at + 1], at + 1
            if any(event["event"] == "events_lost" for event in since):
                raise RuntimeError("events went by faster than they were read")
            return [event for event in since if event["function"] == function]

    def of_kind(self, kind):
        """All events of a kind so far."""
        with self.changed:
            return [event for event in self.heard if event["event"] == kind]

    def _find(self, kind, function):
        of_it = (at for at in range(self.given, len(self.heard))
                 if self.heard[at]["event"] == kind and self.heard[at]["function"] == function)
        return next(of_it, None)

    def _listen(self):
        for line in self.process.stdout:
            with self.changed:
                self.heard.append(json.loads(line))
                self.changed.notify_all()
        with self.changed:
            self.is_over = True
            self.changed.notify_all()
