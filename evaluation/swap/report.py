"""What ./run measured: the tables, the CSV, and which promises hold."""

from measuring import Bars, print_table
from results import cell, median, mib, write_csv

# Of page-locked memory to an H200 over PCIe 5 (docs/benchmarks.md).
BYTES_PER_MS = 55e9 / 1e3
BERT_LARGE_MS = 28


def _of(measurement, key):
    return median([record.get(key) for record in measurement.records])


def _bytes(measurement, mode):
    """What had to be copied."""
    return _of(measurement, f"{mode}_bytes")


def bound_ms(native_ms, copied_bytes):
    """What a request with a swap may take."""
    return max(native_ms, copied_bytes / BYTES_PER_MS) * 1.15 + 0.5


def _bound(measurement, mode):
    return bound_ms(_of(measurement, "native_ms"), _bytes(measurement, mode))


def line(measurement):
    """One line while the others are still measured."""
    figures = ", ".join(f"{label} {cell(_of(measurement, key))}" for label, key in (
        ("native", "native_ms"), ("remoted warm", "warm_ms"), ("swap, never", "never_ms"), ("swap, changed", "changed_ms"),
        ("application's reload", "reload_ms")))
    return f"{measurement.model}: {figures} ms; {len(measurement.records)} rounds, {measurement.wrong} wrong outputs"


def tell(measurements, failed, output):
    """Everything. Gives the promises."""
    print("\nfirst request after an eviction, ms (bound: max(native, bytes / 55 GB/s) x 1.15 + 0.5)")
    rows = [("model", "native", "remoted warm", "never MiB", "never", "bound", "changed MiB", "changed", "bound", "reload",
             "of it copies", "outputs")]
    for each in measurements:
        cells = [cell(_of(each, "native_ms")), cell(_of(each, "warm_ms"))]
        for mode in ("never", "changed"):
            cells += [mib(_bytes(each, mode)), cell(_of(each, f"{mode}_ms")), cell(_bound(each, mode))]
        cells += [cell(_of(each, "reload_ms")), cell(_of(each, "reload_copy_ms"))]
        rows.append((each.model, *cells, f"{each.wrong} WRONG" if each.wrong else "same bits"))
    print_table(rows)

    print("\nwhat mapping and unmapping cost, and what an eviction does (us)")
    rows = [("model, mode", "segments", "resident MiB", "map", "map and post", "unmap", "digest", "copy back",
             "copied back MiB")]
    for each in measurements:
        for mode in ("never", "changed"):
            def figure(key, each=each, mode=mode):
                return _of(each, f"{mode}_{key}")
            rows.append((f"{each.model}, {mode}", cell(figure("segments"), 0), mib(figure("resident_bytes")),
                         *(cell(figure(key), 0) for key in ("map_us", "post_us", "unmap_us", "digest_us", "copy_us")),
                         mib(figure("copied_back_bytes"))))
    print_table(rows)

    checkpoints = [(each.model, one) for each in measurements for one in each.checkpoints]
    if checkpoints:
        print("\nthe driver's process checkpoint, ms")
        rows = [("model", "out", "back", "first inference", "back in all")]
        for model, one in checkpoints:
            if "error" in one:
                print(f"  {model}: {one['error']}")
                continue
            out, back = one["lock_ms"] + one["checkpoint_ms"], one["restore_ms"] + one["unlock_ms"]
            rows.append((model, cell(out, 0), cell(back, 0), cell(one["infer_ms"], 1), cell(back + one["infer_ms"], 0)))
        print_table(rows)
    print()
    write_csv(output / "swap.csv", ("model", "round", "figure", "value"),
              [(each.model, number, key, value) for each in measurements for number, record in enumerate(each.records)
               for key, value in record.items() if value is not None])
    return _verdicts(measurements, failed)


def _verdicts(measurements, failed):
    bars = Bars()
    for each in measurements:
        for mode in ("never", "changed"):
            took, bound = _of(each, f"{mode}_ms"), _bound(each, mode)
            if each.model == "bert_large_qa" and mode == "never":
                bound = BERT_LARGE_MS
            bars.say(f"{each.model}, {mode}: the first request after an eviction", took <= bound,
                     f"{took:.2f} ms of {bound:.2f}")
        bars.say(f"{each.model}: outputs are the same bits after every swap", not each.wrong, f"{each.wrong} wrong")
    for reason in failed:
        bars.say("everything was measured", False, reason)
    return bars
