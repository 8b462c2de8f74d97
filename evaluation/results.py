"""How results are told beside what measuring.py has: figures that may be unknown, and CSV files."""

import csv
import statistics


def median(numbers):
    """Of those that are known; None if none is."""
    known = [number for number in numbers if number is not None]
    return statistics.median(known) if known else None


def cell(number, digits=2):
    """A number as a text; "-" if it is not known."""
    return "-" if number is None else f"{number:.{digits}f}"


def mib(number):
    """Bytes as a text, in MiB."""
    return cell(None if number is None else number / (1 << 20), 1)


def write_csv(path, heading, rows):
    """Rows of anything."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(heading)
        writer.writerows(rows)
    print(path, flush=True)
