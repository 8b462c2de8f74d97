"""What ./run measured: tables, files, drawings, promises."""

import json

import chart
import lines
import machine
from measuring import percentile, print_table, title
from results import cell, median, mib, write_csv
from ways import WAYS


def line(model, kind, took):
    """One line while the others are still measured."""
    return (f"{model}, {WAYS[kind].label}: first token {cell(median(took['first_ms']), 1)} ms, where it is there "
            f"{cell(median(took['there_ms']), 1)}; it leaves in {cell(median(took['out_ms']), 1)}")


def in_time(rows, slo):
    """Of 100 requests, those with a good answer within so many milliseconds."""
    return 100 * sum(ms is not None and ms <= slo and not wrong for _, ms, wrong in rows) / len(rows)


def line_of_load(kind, rows, swaps, slo):
    """The same of load."""
    return f"load, {WAYS[kind].label}: {in_time(rows, slo):.1f} % of {len(rows)} requests in time, {swaps} swaps"


def held(took):
    """Functions that a GPU holds by its memory, one of them there: None if what one leaves is not known or nothing, so that host memory
    decides; as many as that has, by their weights, at most."""
    total, by_host = machine.card_total_bytes(), machine.memory()["MemTotal"] // max(1, took["weights_bytes"])
    if total is None or took.get("away_bytes") is None:
        return None
    left = max(0, total - took["there_bytes"])
    away = max(0, took["away_bytes"])
    # nvidia-smi counts whole MiB; what is less is noise.
    return by_host if away < 2 << 20 else min(by_host, 1 + left // away)


def tell(given, firsts, loads, failed, output, bars):
    """Everything."""
    if given.simulated:
        print("SIMULATED GPU, tiny models: times mean nothing")
    rows = [("model, way", "first token, it is there", "first token, it was away", "most", "it leaves in", "MiB it has on the GPU", "away",
             "functions a GPU holds", "wrong")]
    for (model, kind), took in firsts.items():
        rows.append((f"{model}, {WAYS[kind].label}", cell(median(took["there_ms"]), 1), cell(median(took["first_ms"]), 1),
                     cell(max(took["first_ms"]), 1), cell(median(took["out_ms"]), 1), mib(took.get("there_bytes")), mib(took.get("away_bytes")),
                     cell(held(took), 0), str(took["wrong"])))
    print_table(rows)
    write_csv(output / "first.csv", ("model", "way", "round", "there_ms", "out_ms", "first_ms"),
              [(model, kind, number, *(round(took[key][number], 3) for key in ("there_ms", "out_ms", "first_ms")))
               for (model, kind), took in firsts.items() for number in range(len(took["first_ms"]))])
    table = [("way", "requests", "in time", "P50 ms", "P98 ms", "swaps", "wrong")]
    for kind, (became, swaps) in loads.items():
        ms = [one if one is not None else float("inf") for _, one, _ in became]
        table.append((WAYS[kind].label, str(len(became)), f"{in_time(became, given.slo):.1f} %", cell(percentile(ms, 50), 1),
                      cell(percentile(ms, 98), 1), str(swaps), str(sum(wrong for *_, wrong in became))))
    print_table(table)
    write_csv(output / "load.csv", ("way", "function", "latency_ms", "wrong"),
              [(kind, *one) for kind, (became, _) in loads.items() for one in became])
    (output / "today.json").write_text(json.dumps({"first": [{"model": model, "way": kind, **took} for (model, kind), took in firsts.items()],
                                                   "load": {kind: {"in_time": in_time(became, given.slo), "requests": len(became), "swaps": swaps}
                                                            for kind, (became, swaps) in loads.items()}}, indent=1))
    draw(given, firsts, loads, output)
    bars.say("everything was measured", not failed, "; ".join(failed) or f"{len(firsts)} of a way and a model, {len(loads)} loads")
    wrong = sum(took["wrong"] for took in firsts.values()) + sum(one[2] for became, _ in loads.values() for one in became)
    bars.say("every output is the program's own before it left", not wrong, f"{wrong} wrong")
    if not given.simulated:
        for model in given.models:
            ours, others = firsts.get((model, "torpor")), {kind: took for (of, kind), took in firsts.items() if of == model and kind != "torpor"}
            if ours and others:
                best = min(others, key=lambda kind: median(others[kind]["first_ms"]))
                bars.say(f"{model}: the first token comes no later than by the best other way", median(ours["first_ms"]) <= median(others[best]["first_ms"]),
                         f"{cell(median(ours['first_ms']), 1)} ms, {WAYS[best].label} {cell(median(others[best]['first_ms']), 1)}")


def draw(given, firsts, loads, output):
    """Bars: each model has a scale of its own, and the loads have one."""
    models = [model for model in given.models if all((model, kind) in firsts for kind in given.ways)]
    labels = {kind: WAYS[kind].label for kind in given.ways}
    if models:
        values = {model: {kind: median(firsts[model, kind]["first_ms"]) for kind in labels} for model in models}
        lines.write(output / "first.svg", chart.draw(title(given, "time to the first token of a function that was away"), "ms", models, labels, values))
    if loads:
        group = f"{given.rate:g} requests a second"
        lines.write(output / "load.svg", chart.draw(
            title(given, f"first token within {given.slo:g} ms"), "%", [group], {kind: WAYS[kind].label for kind in loads},
            {group: {kind: in_time(became, given.slo) for kind, (became, _) in loads.items()}}, f"requests in time, functions share {given.room} (%)"))
