"""How results are told: tables, CSV files, promises that are kept or not."""

import csv
import math
import statistics


def median(numbers):
    """Of those that are known; None if none is."""
    known = [number for number in numbers if number is not None]
    return statistics.median(known) if known else None


def percentile(numbers, percent):
    """The smallest number that so many percent do not exceed (nearest rank); None of nothing."""
    ordered = sorted(numbers)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else None


def cell(number, digits=2):
    """A number as a text; "-" if it is not known."""
    return "-" if number is None else f"{number:.{digits}f}"


def mib(number):
    """Bytes as a text, in MiB."""
    return cell(None if number is None else number / (1 << 20), 1)


def print_table(rows):
    """Rows of texts, the first of them the heading; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [f"{text:<{width}}" if column == 0 else f"{text:>{width}}"
                 for column, (text, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip(), flush=True)


def write_csv(path, heading, rows):
    """Rows of anything."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(heading)
        writer.writerows(rows)
    print(path, flush=True)


class Bars:
    """What is promised, and whether it is so."""

    def __init__(self):
        self.missed = []

    def say(self, what, holds, measured):
        """One line for one promise."""
        print(f"{'met   ' if holds else 'MISSED'} {what}: {measured}", flush=True)
        if not holds:
            self.missed.append(what)

    def status(self):
        """For the shell: 1 if a promise is broken."""
        print(f"{len(self.missed)} promises broken", flush=True)
        return 1 if self.missed else 0
