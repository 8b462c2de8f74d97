"""What ./run measured: a table, a summary, a figure, and what is promised of them."""

import csv
import json

import lines
from measuring import print_table
from results import cell, write_csv

COLUMNS = ("functions", "rpm", "minutes", "requests", "ok", "timeouts", "errors", "unsent", "wrong", "p50_ms", "p98_ms", "p99_ms",
           "attainment", "functions_in_objective", "turns_requests", "turns_swaps")


def keeps(point):
    """Whether 98 of 100 requests were answered within the objective."""
    return point["p98_ms"] is not None and point["p98_ms"] <= point["slo_ms"]


def line(point):
    """One line while the others are still measured."""
    return (f"{point['functions']} functions, {point['requests']} requests, P50 {cell(point['p50_ms'])} ms, P98 {cell(point['p98_ms'])}, "
            f"{100 * point['attainment']:.2f} % in time, {failed(point)} failed, {point['wrong']} wrong")


def failed(point):
    """Requests without a good answer."""
    return point["errors"] + point["timeouts"] + point["unsent"]


def tell(given, points, wanted, output, bars):
    """Everything."""
    measured = {name: point for name in wanted if (point := points.known(name))}
    rows = [("point", "functions", "a minute each", "a minute in all", "P50 ms", "P98 ms", "P99 ms", "in time", "in objective", "failed",
             "wrong", "with swaps")]
    for name, point in measured.items():
        swaps = point.get("turns_swaps")
        rows.append((name, str(point["functions"]), str(point["rpm"]), cell(point["requests"] / point["minutes"], 0),
                     *(cell(point[key]) for key in ("p50_ms", "p98_ms", "p99_ms")), f"{100 * point['attainment']:.2f} %",
                     f"{point['functions_in_objective']}/{point['functions']}", str(failed(point)), str(point["wrong"]),
                     "-" if swaps is None else str(swaps)))
    print_table(rows)
    write_csv(output / "figure8.csv", ("point", "system", *COLUMNS),
              [(name, point["system"], *(point.get(key, "") for key in COLUMNS)) for name, point in measured.items()])
    (output / "figure8.json").write_text(json.dumps(measured, indent=1))
    if measured:
        draw(given, measured, output / "figure8.svg")
    say(given, points, wanted, measured, bars)


def read(path):
    """The points of a figure8.csv, {name: point}, as far as they are drawn. A P98 that was never reached is empty there."""
    with open(path, newline="") as file:
        return {row["point"]: {"system": row["system"], "functions": int(row["functions"]), "rpm": int(row["rpm"]), "minutes": float(row["minutes"]),
                               "p98_ms": float(row["p98_ms"]) if row["p98_ms"] else None} for row in csv.DictReader(file)}


def draw(given, measured, path):
    """P98 over functions on the GPU."""
    labels = {"native": "native processes", "torpor": "Torpor"}
    drawn, notes = {}, {}
    top = 1.5 * given.slo
    for name, point in sorted(measured.items(), key=lambda item: (item[1]["functions"], item[1]["rpm"])):
        at = (point["functions"], min(point["p98_ms"] if point["p98_ms"] is not None else top, top))
        drawn.setdefault(labels[point["system"]], []).append(at)
        beside = [other["rpm"] for other in measured.values() if (other["system"], other["functions"]) == (point["system"], point["functions"])]
        # Points above each other have one note.
        if point["rpm"] == max(beside):
            rates = f"{min(beside)} to {max(beside)}" if len(beside) > 1 else point["rpm"]
            notes[at] = f"{rates}/min" + (": not answered" if point["p98_ms"] is None else f": {point['p98_ms']:.0f}" if at[1] == top else "")
    most = max(point["functions"] for point in measured.values())
    drawn[f"objective, {given.slo} ms"] = [(0, given.slo), (most, given.slo)]
    minutes = " to ".join(f"{one:g}" for one in sorted({point["minutes"] for point in measured.values()}))
    subtitle = (f"{given.model}, batch 1, independent arrivals, {minutes} minutes a point; Torpor has {given.gpu_limit} of the card, "
                f"native processes {given.card}")
    title = "SIMULATED GPU, times mean nothing" if given.simulated else "Low-rate functions on one GPU: P98 by functions, requests a minute"
    lines.write(path, lines.draw(title, subtitle, "functions on the GPU", "P98 latency, end to end (ms)", drawn, (0, top), notes))


def say(given, points, wanted, measured, bars):
    """The promises."""
    torpor = [point for point in measured.values() if point["system"] == "torpor"]
    native = [point for point in measured.values() if point["system"] == "native"]
    kept = max((point["functions"] for point in torpor if keeps(point)), default=0)
    # Fewer functions than those that keep the objective at the same rate need not be tried.
    missing = [name for name in wanted if name not in measured and not (wanted[name][1] in given.most and wanted[name][1] < kept)]
    bars.say("everything was measured", not missing, ", ".join(missing) or f"{len(measured)} points")
    late = [name for name, point in measured.items() if point["system"] == "torpor" and point["functions"] not in given.most
            and not keeps(point)]
    bars.say(f"P98 within {given.slo} ms at the paper's points", not late, ", ".join(late) or "all")
    wrong = sum(point["wrong"] for point in measured.values())
    bars.say("every output is the function's first one, bit by bit", not wrong,
             f"{wrong} wrong of {sum(point['requests'] for point in measured.values())}")
    lost = {name: failed(point) for name, point in measured.items() if failed(point)}
    bars.say("every request is answered", not lost, lost or "all")
    ours, theirs = (points.known(f"first-outputs-{system}") for system in ("torpor", "native"))
    if ours and theirs:
        both = set(ours["outputs"]) & set(theirs["outputs"])
        differ = [name for name in both if ours["outputs"][name] != theirs["outputs"][name]]
        bars.say("the first outputs are a native process's", bool(both) and not differ, f"{len(differ)} of {len(both)} differ")
    if native and torpor:
        most_native = max((point["functions"] for point in native if keeps(point)), default=0)
        bars.say("ten times native's functions keep the objective", kept >= 10 * most_native > 0, f"{kept} of native's {most_native}")
