"""What ./run saw: tables, CSV files, and which promises hold."""

import machine
import offline
from measuring import Bars, percentile, print_table
from results import cell, mib, write_csv

# The store grows by slabs of 256 MiB, and takes what arrives before it finds that it has it already.
STORE_SLACK_BYTES = 1 << 30
# What issue 15 promises of the functions that ./run starts by itself: half of the P99 of before, at its rate or more; and swaps, of those
# that an eviction with the future known would need.
MOST_P99_MS, LEAST_A_SECOND, TIMES_FORESEEN = 65, 68.5, 1.3


def tell(asked, members, spells, watch, server, limit_bytes, output, is_judged):
    """Everything. `spells`: [(requests in flight, the clients, seconds)]; `is_judged`: they are what the promises are of. Gives the promises."""
    ready = [member for member in members if member.first]
    counts = {model: sum(member.model == model for member in ready) for model in asked}
    print(f"\n{len(ready)} functions in processes of their own: "
          + ", ".join(f"{count} {model} ({asked[model]} asked for)" for model, count in counts.items()))
    bars, rows, asked_names = Bars(), [], set()
    bars.say("every function that fits has started", len(ready) == len(members), f"{len(ready)} of {len(members)}")
    bars.say("there were requests", bool(spells), f"{len(spells)} spells")
    for in_flight, clients, seconds in spells:
        requests, lost, swaps = clients.requests, clients.lost, clients.swaps()
        print(f"\n{in_flight} requests at a time")
        p99, rate = _latencies(requests, lost, swaps, seconds)
        if is_judged:
            bars.say(f"P99 at {LEAST_A_SECOND} a second or more", p99 <= MOST_P99_MS and rate >= LEAST_A_SECOND,
                     f"{p99:.1f} ms of {MOST_P99_MS} at {rate:.1f} a second")
        wrong = sum(request.is_wrong for request in requests)
        bars.say("every output is the function's first one, bit by bit", bool(requests) and not wrong,
                 f"{wrong} wrong of {len(requests)}")
        bars.say("every request is answered", not clients.failures, f"{len(clients.failures)} failed {clients.failures[:2] or ''}")
        unheard = clients.events.of_kind("events_lost")
        bars.say("every event was heard", not unheard, f"{sum(event['count'] for event in unheard)} went by too fast")
        _swaps(requests, swaps, clients.rate_of(), server, limit_bytes, bars if is_judged else None)
        asked_names |= {request.name for request in requests}
        rows += [(in_flight, f"{one.at_s:.3f}", one.name, one.model, f"{one.ms:.3f}", count, int(one.is_wrong))
                 for one, count in zip([*requests, *lost], [*swaps, *([""] * len(lost))])]
    compared = [member for member in ready if member.native]
    equal = sum(member.native == member.first for member in compared)
    print(f"\n       {len(asked_names)} functions had requests; the first outputs of {equal} of {len(compared)} are those of a native process")
    _gpu_memory(watch, limit_bytes, bars)
    _host_memory(ready, watch, server, bars)
    write_csv(output / "requests.csv", ("in_flight", "at_s", "function", "model", "ms", "swaps", "wrong"), rows)
    write_csv(output / "samples.csv", watch.HEADING, watch.samples)
    return bars


def _latencies(requests, lost, swaps, seconds):
    """Those that were lost are among all, as never answered. Gives P99 and requests a second of all."""
    rows = [("latency in the process", "requests", "per second", "P50 ms", "P99 ms", "max ms")]
    kinds = [("all", [*requests, *lost])]
    for model in sorted({request.model for request in requests}):
        same = [(request, count) for request, count in zip(requests, swaps) if request.model == model]
        kinds += [(f"{model}, hits", [request for request, count in same if not count]),
                  (f"{model}, swaps", [request for request, count in same if count])]
    for label, some in kinds:
        ms = [request.ms for request in some]
        rows.append((label, str(len(ms)), cell(len(ms) / seconds if seconds else None, 1),
                     *(cell(percentile(ms, percent) if ms else None) for percent in (50, 99)), cell(max(ms, default=None))))
    print_table(rows)
    every = kinds[0][1]
    return percentile([request.ms for request in every], 99) if every else float("inf"), len(every) / max(seconds, 1e-9)


def _swaps(requests, swaps, rate_of, server, limit_bytes, bars):
    """How many there were, and how many there would be of these requests in this order, one after the other."""
    try:
        bytes_of = {row["name"]: row["allocated_bytes"] for row in server.ask("functions")}
    except RuntimeError as error:
        print(f"       how many swaps there must be is not known: {error}")
        return
    rate_of = {name: rate for name, rate in rate_of.items() if name in bytes_of}
    order = [request.name for request in sorted(requests, key=lambda one: one.began_us) if request.name in bytes_of]
    if not order:
        return
    bounds, seen = offline.bounds(order, bytes_of, limit_bytes, rate_of), sum(count > 0 for count in swaps)
    least = bounds.unforeseen / max(1, bounds.foreseen)
    if bars:
        bars.say("swaps, of those with the future known", seen <= TIMES_FORESEEN * bounds.foreseen,
                 f"{seen / max(1, bounds.foreseen):.2f} of {TIMES_FORESEEN} times"
                 + (f"; nobody who does not know the future comes below {least:.2f} with these requests" if least > TIMES_FORESEEN else ""))
    print(f"       swaps: {seen} of {len(order)} requests. With the future known {bounds.foreseen} ({seen / max(1, bounds.foreseen):.2f} times "
          f"that); by who was used longest ago {bounds.lru}; without knowing the future at least {bounds.unforeseen}, as each request "
          "is drawn by itself")


def _gpu_memory(watch, limit_bytes, bars):
    peak = watch.peak("resident_bytes")
    bars.say("GPU memory of the functions never exceeds the limit", peak is not None and peak <= limit_bytes,
             f"at most {mib(peak)} of {mib(limit_bytes)} MiB in {len(watch.samples)} looks")
    before, card = watch.before[watch.HEADING.index("card_used_bytes")], watch.peak("card_used_bytes")
    print(f"       the card: {mib(before)} MiB in use with the server alone, at most {mib(card)} (limit and the server "
          f"alone: {mib(None if before is None else before + limit_bytes)}; loaded kernels come to that)")


def _host_memory(ready, watch, server, bars):
    def grown(key):
        column = watch.HEADING.index(key)
        return (watch.peak(key) or 0) - watch.before[column]

    weights = {member.name: member.function.information["weights_bytes"] for member in ready}
    distinct = {(member.model, member.seed): weights[member.name] for member in ready}
    try:
        rows = {row["name"]: row for row in server.ask("functions")}
    except RuntimeError as error:
        bars.say("the host store's use is known", False, error)
        return
    held = {member.name: rows.get(member.name, {}).get("host_bytes", 0) for member in ready}
    differs = sum(max(0, held[name] - weights[name]) for name in held)
    allowed = sum(distinct.values()) + differs
    private = sum(machine.private_bytes(member.function.information["pid"]) for member in ready)
    print(f"       host memory, MiB: the machine's in use grew by {mib(grown('host_used_bytes'))}, of it shared memory "
          f"{mib(grown('shmem_bytes'))}; the processes' own {mib(private)}")
    print(f"       the host store: functions refer to {mib(sum(held.values()))} MiB; one copy of each of "
          f"{len(distinct)} weight sets is {mib(sum(distinct.values()))}, what functions have beside weights {mib(differs)}")
    store = grown("store_bytes")
    if not store:
        print("       the server holds no shared memory named torpor-store: what the host store takes is not known")
        return
    bars.say("the host store has one copy of each distinct weight set and what differs", store <= allowed + STORE_SLACK_BYTES,
             f"at most {mib(store)} MiB in its slabs of {mib(allowed)} and slack {mib(STORE_SLACK_BYTES)}; without sharing "
             f"{mib(sum(held.values()))}")
