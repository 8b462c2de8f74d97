"""Load that does not wait for answers, through a router (routing.py), and what `torpor report` says of the records."""

import concurrent.futures
import csv
import json
import subprocess
import time
import urllib.request

from server import binaries

# A request that is not answered within this counts as missed.
PATIENCE = "10s"
# What a function's process answers when its output is not its first one, bit by bit.
WRONG = "409"


def warm(router, wanted, seconds=60):
    """One request to each, a few at a time, until it is answered. Gives those that were not."""
    deadline = time.monotonic() + seconds

    def ask(member):
        url = f"{router.url}/v1/functions/{member.name}/invoke"
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(urllib.request.Request(url, data=b"{}"), timeout=30):
                    return None
            except OSError:
                time.sleep(0.1)
        return member

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return [member for member in pool.map(ask, wanted) if member]


def load(router, records, *flags, names=()):
    """`torpor load-test` with these flags. Gives the rows of `report`."""
    command = [binaries() / "torpor", "load-test", *names, "--url", router.url, "--data", "{}", "--timeout", PATIENCE,
               "--config", router.settings, "--records", records, "--json", *flags]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr}")
    return summary(json.loads(done.stdout)["functions"], records)


def summary(rows, records, percentile=0.98):
    """Of all functions together, from the functions of `torpor report --json`, and of the records how many outputs were wrong."""
    functions = [row for row in rows if row["function"] != "total"] if len(rows) > 1 else rows
    with open(records, newline="") as file:
        wrong = sum(record["status"] == WRONG for record in csv.DictReader(file))
    within = sum(row["attainment"] >= percentile for row in functions)
    return {**rows[-1], "function": "total", "wrong": wrong, "functions": len(functions), "functions_in_objective": within}
