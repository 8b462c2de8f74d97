"""Points of a figure that are measured one after the other, each kept in files of its own, so that a run goes on where it stopped."""

import json
import pathlib


class Points:
    """NAME.json, with what the point was measured with, and NAME.csv, with its requests, in the folder `points` of the output."""

    def __init__(self, output, measured_with):
        self.folder = pathlib.Path(output) / "points"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.measured_with = measured_with

    def records(self, name):
        """The file for what became of each request."""
        return self.folder / f"{name}.csv"

    def known(self, name):
        """What was measured with the same settings; None if it was not."""
        try:
            point = json.loads((self.folder / f"{name}.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return point if point["measured_with"] == self.measured_with else None

    def keep(self, name, figures):
        """Writes a point that is whole. Gives it."""
        point = {**figures, "measured_with": self.measured_with}
        part = self.folder / f"{name}.part"
        part.write_text(json.dumps(point, indent=1))
        part.rename(self.folder / f"{name}.json")
        return point
