"""Figures 10 and 11 on real GPUs: lines of points, each with so many functions of a drawn trace, deployed with other policies or natively."""

import dataclasses
import json
import os
import subprocess

import deployments
import fleet
import lines
import machine
import running
from functions.process import ProgramError
from measuring import STAND_IN, Bars, print_table
from points import Points
from replay import draw_trace
from results import cell, write_csv
from running import Time, folders, interruptible

# Lines that are not Torpor's: native processes that stay, and those that are kept alive by what was, or by all that will be.
NATIVE, LEARNT, FORESEEN = "native", "learnt", "foreseen"

COLUMNS = ("functions", "speed", "minutes", "requests", "ok", "timeouts", "errors", "unsent", "wrong", "p50_ms", "p98_ms", "p99_ms",
           "attainment", "functions_in_objective", "turns_requests", "turns_swaps", "process_starts", "started")


@dataclasses.dataclass(frozen=True)
class Figure:
    """What is drawn: `lines` is {label: [scheduler] of Torpor, or what else there is}; `slo_ms` a function of a model."""

    name: str
    title: str
    lines: dict
    models: list
    slo_ms: object


def add_arguments(parser):
    """The flags of such a figure."""
    parser.add_argument("--counts", nargs="+", type=int, default=[40, 80, 120, 160], metavar="N", help="functions")
    parser.add_argument("--minutes", type=int, default=31, help="of the trace, for each point")
    parser.add_argument("--speed", type=float, default=1, metavar="N", help="times the trace's rate")
    parser.add_argument("--gpus", type=int, default=None, metavar="N", help="default: all")
    parser.add_argument("--only", nargs="+", metavar="LINE", help="these lines alone, by their names in points/")
    deployments.add_arguments(parser, distinct=4)
    running.add_common_arguments(parser, seconds=float("inf"))


def settle(given):
    """What the flags come to on this machine."""
    if given.simulated:
        os.environ.setdefault("TORPOR_SIMGPU_DEVICES", "2")
        given.gpus, given.gpu_limit, given.host_pool, given.counts = 2, "256MiB", "2GiB", [8, 4]
    if given.quick:
        given.minutes, given.counts = 1, given.counts[:1]
    given.gpus = given.gpus or machine.gpus()


def slug(label):
    """Of a line, for names of files."""
    return "".join(letter if letter.isalnum() else "-" for letter in label.lower()).replace("--", "-")


def measure(given, figure):
    """All points that are not known yet, and what they say."""
    interruptible()
    settle(given)
    logs, output = folders(given, figure.name)
    time = Time(given.seconds)
    points = Points(output, {key: getattr(given, key) for key in ("minutes", "speed", "gpus", "card", "gpu_limit", "distinct", "seed",
                                                                  "simulated")})
    chosen = {label: line for label, line in figure.lines.items() if not given.only or slug(label) in given.only}
    try:
        for label, scheduler in chosen.items():
            missing = [count for count in given.counts if not points.known(f"{slug(label)}-{count}")]
            if missing and not time.is_over():
                take(given, figure, points, label, scheduler, missing, logs, time)
    except (KeyboardInterrupt, ProgramError, RuntimeError, subprocess.SubprocessError, OSError) as error:
        print(f"stopped: {error!r}", flush=True)
    tell(given, figure, chosen, points, output)


def take(given, figure, points, label, scheduler, missing, logs, time):
    """The missing points of a line, whose functions are started once."""
    members = fleet.members(figure.models, max(missing), given.distinct, figure.slo_ms, given.gpus, STAND_IN if given.simulated else None)
    if scheduler == NATIVE:
        deployed = deployments.native(given, members, logs, slug(label), given.gpus)
    elif scheduler in (LEARNT, FORESEEN):
        deployed = deployments.kept_alive(given, members, logs, slug(label), given.gpus, scheduler == FORESEEN)
    else:
        settings = {key: value(given.gpus) if callable(value) else value for key, value in scheduler.items()}
        deployed = deployments.torpor(given, members, logs, slug(label), machine.gpu_flags(given.gpus), settings)
    with deployed as deployment:
        for count in missing:
            if time.is_over():
                break
            name = f"{slug(label)}-{count}"
            trace = draw_trace(points.folder / f"trace-{count}.csv", figure.models, count, given.minutes, given.speed, given.seed)
            names = {member.name for member in members[:count]}
            started = [member for member in deployment.members if member.name in names]
            deployment.expect(trace)
            figures = deployment.load(started, points.records(name), "--trace", trace)
            point = points.keep(name, {"line": label, "speed": given.speed, "minutes": given.minutes, "started": len(started), **figures})
            print(f"{name}: {100 * attained(point):.1f} % of the functions in objective, P98 {cell(point['p98_ms'])} ms, "
                  f"{point['requests']} requests, {failed(point)} failed, {point['wrong']} wrong", flush=True)


def attained(point):
    """The part of the functions that had as many of their requests in time as they should."""
    return point["functions_in_objective"] / point["functions"]


def failed(point):
    """Requests without a good answer."""
    return point["errors"] + point["timeouts"] + point["unsent"]


def tell(given, figure, chosen, points, output):
    """The table, the files, the drawing, and what was promised. Ends the script."""
    known = {(label, count): points.known(f"{slug(label)}-{count}") for label in chosen for count in given.counts}
    measured = {key: point for key, point in known.items() if point}
    rows = [("line, functions", "started", "requests a second", "in objective", "in time", "P50 ms", "P98 ms", "P99 ms", "failed", "wrong",
             "with swaps", "processes started")]
    for (label, count), point in measured.items():
        rows.append((f"{label}, {count}", str(point["started"]), cell(point["requests"] / point["seconds"], 1),
                     f"{100 * attained(point):.1f} %", f"{100 * point['attainment']:.2f} %",
                     *(cell(point[key]) for key in ("p50_ms", "p98_ms", "p99_ms")), str(failed(point)), str(point["wrong"]),
                     str(point.get("turns_swaps", "-")), str(point.get("process_starts", "-"))))
    print_table(rows)
    path = output / f"{figure.name}-{given.gpus}-gpus.csv"
    write_csv(path, ("line", *COLUMNS), [(label, *(point.get(key, "") for key in COLUMNS)) for (label, _), point in measured.items()])
    path.with_suffix(".json").write_text(json.dumps(list(measured.values()), indent=1))
    drawn = {label: [(count, 100 * attained(measured[label, count])) for count in given.counts if (label, count) in measured]
             for label in chosen}
    if measured:
        title = "SIMULATED GPUs, times mean nothing" if given.simulated else f"{figure.title}, {given.gpus} GPU(s), measured"
        subtitle = (f"{given.minutes} minutes of a drawn trace at {given.speed:g} times its rate; Torpor has {given.gpu_limit} of each GPU, "
                    f"native processes {given.card}")
        lines.write(path.with_suffix(".svg"), lines.draw(title, subtitle, "functions", "functions within their objective (%)",
                                                         {label: line for label, line in drawn.items() if line}))
    bars = Bars()
    missing = [f"{label}, {count}" for label, count in known if not known[label, count]]
    bars.say("everything was measured", not missing, "; ".join(missing) or f"{len(measured)} points")
    wrong = sum(point["wrong"] for point in measured.values())
    bars.say("every output is the function's first one, bit by bit", not wrong,
             f"{wrong} wrong of {sum(point['requests'] for point in measured.values())}")
    bars.end()
