"""What ./run measured: a table, a summary, a figure, and what is promised of them."""

import json
import statistics

import chart
import lines
from measuring import print_table
from results import cell, write_csv

COLUMNS = ("functions", "speed", "minutes", "requests", "ok", "timeouts", "errors", "unsent", "wrong", "p50_ms", "p98_ms", "p99_ms",
           "attainment", "functions_in_objective", "turns_requests", "turns_swaps")


def line(point):
    """One line while the others are still measured."""
    loads = ", ".join(f"{100 * load:.1f} %" for load in loads_of(point))
    return (f"{point['requests']} requests, P50 {cell(point['p50_ms'])} ms, P98 {cell(point['p98_ms'])}, {failed(point)} failed, "
            f"{point['wrong']} wrong; load of the GPUs {loads}")


def failed(point):
    """Requests without a good answer."""
    return point["errors"] + point["timeouts"] + point["unsent"]


def loads_of(point):
    """Of each GPU the part of the time in which it was used."""
    return list(point["busy"].values())


def unevenness(point):
    """The busiest GPU's load over the mean; None if nothing was done."""
    loads = loads_of(point)
    return max(loads) / statistics.mean(loads) if loads and any(loads) else None


def tell(given, points, output, bars):
    """Everything. `points` has None for what was not measured."""
    measured = {name: point for name, point in points.items() if point}
    rows = [("point", "requests a second", "P50 ms", "P98 ms", "P99 ms", "in objective", "failed", "wrong", "busiest GPU / mean",
             "load of each GPU, %")]
    for name, point in measured.items():
        rows.append((name, cell(point["requests"] / point["seconds"], 1), *(cell(point[key]) for key in ("p50_ms", "p98_ms", "p99_ms")),
                     f"{point['functions_in_objective']}/{point['functions']}", str(failed(point)), str(point["wrong"]),
                     cell(unevenness(point)), " ".join(f"{100 * load:.1f}" for load in loads_of(point))))
    print_table(rows)
    write_csv(output / "figure9.csv", ("point", "system", *COLUMNS, "busiest_to_mean", "load of each GPU"),
              [(name, point["system"], *(point.get(key, "") for key in COLUMNS), cell(unevenness(point), 3),
                " ".join(map(str, loads_of(point)))) for name, point in measured.items()])
    (output / "figure9.json").write_text(json.dumps(measured, indent=1))
    if measured:
        draw(given, measured, output)
    say(points, measured, bars)


def draw(given, measured, output):
    """The GPUs' loads."""
    gpus = sorted({gpu for point in measured.values() for gpu in point["busy"]})
    title = "SIMULATED GPUs, loads mean nothing" if given.simulated else f"Load of the GPUs, {given.functions} {given.model} functions"
    values = {f"{name}, P98 {cell(point['p98_ms'], 0)} ms": {gpu: 100 * point["busy"].get(gpu, 0.0) for gpu in gpus}
              for name, point in measured.items()}
    axis = "part of the time in which functions used the GPU (%)"
    of_a_system = max(sum(point["system"] == system for point in measured.values()) for system in ("torpor", "native"))
    lines.write(output / "figure9.svg", chart.draw(title, "%", list(values), {gpu: f"GPU {gpu}" for gpu in gpus}, values, axis,
                                                   per_row=of_a_system))


def say(points, measured, bars):
    """The promises."""
    missing = [name for name in points if name not in measured]
    bars.say("everything was measured", not missing, ", ".join(missing) or f"{len(measured)} points")
    wrong = sum(point["wrong"] for point in measured.values())
    bars.say("every output is the function's first one, bit by bit", not wrong,
             f"{wrong} wrong of {sum(point['requests'] for point in measured.values())}")
    lost = {name: failed(point) for name, point in measured.items() if failed(point)}
    bars.say("every request is answered", not lost, lost or "all")
    for name, point in measured.items():
        native = measured.get(f"native-{point['speed']:g}")
        if point["system"] != "torpor" or native is None:
            continue
        ours, theirs = (one["p98_ms"] or float("inf") for one in (point, native))
        bars.say(f"P98 at most native's at {point['speed']:g} times the trace's rate", ours <= theirs, f"{ours:.2f} ms, native {theirs:.2f}")
