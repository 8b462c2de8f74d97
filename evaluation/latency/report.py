"""Tables of Table 4 (warm latency, first inferences), and what issue 4 promises of them."""

import statistics

from alternating import OF_EACH
from measuring import geometric_mean, percentile, print_table

KINDS = ("native", "remoted")
# The remoted way through binaries of another build.
BESIDE = "beside"

# A CPU is at its usual speed if it needs at most so many times the time that it needs at its fastest.
USUAL = 1.15


def show_warm(models, rounds, bars):
    """Latency of a warm process."""
    rows = [("model", "native ms", "remoted ms", "ratio", "p50", "p99", "p50 remoted", "p99 remoted", "p99/p50",
             "remoted", "error", "remoted")]
    ratios, tails = {}, {}
    for name in models:
        medians, cells, tail, errors = [], [], [], []
        for kind in KINDS:
            of_kind = [each[kind][name] for each in rounds]
            medians.append(statistics.median(figures["median_ms"] for figures in of_kind))
            times = [time for figures in of_kind for time in figures["times_ms"]]
            cells += [f"{percentile(times, 50):.3f}", f"{percentile(times, 99):.3f}"]
            tail.append(uneven(times))
            errors.append(max(figures["rel_err_vs_cpu"] for figures in of_kind))
        ratios[name], tails[name] = medians[1] / medians[0], tail
        rows.append((name, f"{medians[0]:.3f}", f"{medians[1]:.3f}", f"{ratios[name]:.2f}", *cells,
                     f"{tail[0]:.2f}", f"{tail[1]:.2f}", f"{errors[0]:.1e}", f"{errors[1]:.1e}"))
    print(f"warm latency; ms: median over {len(rounds)} rounds of the processes' medians; p50, p99: of all rounds' inferences")
    print_table(rows)
    mean = geometric_mean(ratios.values())
    slow = [f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio > 1]
    worse = [f"{name} {theirs:.2f} to {ours:.2f}" for name, (theirs, ours) in tails.items() if ours > theirs]
    bars.say("geometric mean of the ratios at most 0.80", mean <= 0.80, f"{mean:.3f}")
    bars.say("no model slower than native", not slow, ", ".join(slow) or "none")
    theirs, ours = (geometric_mean(of_kind) for of_kind in zip(*tails.values()))
    bars.say("p99/p50 no worse than native, geometric mean of the models", ours <= theirs, f"{theirs:.2f} to {ours:.2f}")
    bars.say("p99/p50 no worse than native, for each model", not worse, ", ".join(worse) or "none")
    show_usual(models, rounds)
    show_tails(models, rounds)


def show_beside(models, rounds):
    """This build's latency over that of the build beside it."""
    rows, ratios = [("model", "remoted ms", "beside ms", "ratio")], []
    for name in models:
        ours, theirs = (statistics.median(each[kind][name]["median_ms"] for each in rounds) for kind in ("remoted", BESIDE))
        ratios.append(ours / theirs)
        rows.append((name, f"{ours:.3f}", f"{theirs:.3f}", f"{ratios[-1]:.3f}"))
    print("beside the other build")
    print_table(rows)
    print(f"geometric mean {geometric_mean(ratios):.3f}")


def show_usual(models, rounds):
    """Medians of the inferences for which the CPU had the speed that is usual in this run: a machine's CPUs may be half as fast for seconds."""
    kinds = [*KINDS, *([BESIDE] if BESIDE in rounds[0] else [])]
    of_all = [one[kind][name] for one in rounds for kind in kinds for name in models]
    usual = USUAL * percentile([yardstick for figures in of_all for yardstick in figures["yardstick_ms"]], 10)
    rows, ratios = [("model", *(f"{kind} ms" for kind in kinds), *(f"remoted / {kind}" for kind in kinds if kind != "remoted"), "inferences")], []
    for name in models:
        calm = {kind: [time for one in rounds for time, yardstick in zip(one[kind][name]["times_ms"], one[kind][name]["yardstick_ms"])
                       if yardstick <= usual] for kind in kinds}
        counts = "/".join(str(len(times)) for times in calm.values())
        if not all(calm.values()):
            rows.append((name, *[""] * (len(rows[0]) - 2), counts))
            continue
        medians = {kind: statistics.median(times) for kind, times in calm.items()}
        ratios.append([medians["remoted"] / medians[kind] for kind in kinds if kind != "remoted"])
        rows.append((name, *(f"{ms:.3f}" for ms in medians.values()), *(f"{ratio:.3f}" for ratio in ratios[-1]), counts))
    print(f"while the CPU has its usual speed: its yardstick took at most {usual * 1e3:.0f} us")
    print_table(rows)
    print("geometric mean " + ", ".join(f"{geometric_mean(of_kind):.3f}" for of_kind in zip(*ratios)))


def show_tails(models, rounds):
    """Where the slowest inferences are: a slow round is the machine's, a place in every process the program's or ours."""
    rows = [("model", "", "p99/p50", "median of rounds'", "slowest 2 %: ms above p50", "of that off the CPU", "in one round",
             "in a process's first fifth", "CPU at its usual speed", "p99/p50 then")]
    calm_tails = {kind: [] for kind in KINDS}
    for name in models:
        for kind in KINDS:
            of_rounds = [one[kind][name] for one in rounds]
            each = [(*figures, number, place / len(of_round["times_ms"]))
                    for number, of_round in enumerate(of_rounds)
                    for place, figures in enumerate(zip(*(of_round[key] for key in OF_EACH)))]
            times = [time for time, *_ in each]
            p50 = percentile(times, 50)
            slowest = sorted(each, reverse=True)[:max(1, len(each) // 50)]
            in_round = max(sum(number == chosen for *_, number, _ in slowest) for chosen in range(len(rounds)))
            # The fastest tenth has the CPU's usual speed for sure.
            usual = USUAL * percentile([yardstick for _, _, yardstick, *_ in each], 10)
            calm = [time for time, _, yardstick, *_ in each if yardstick <= usual]
            calm_tails[kind].append(uneven(calm))
            rows.append((name, kind, f"{uneven(times):.2f}",
                         f"{statistics.median(uneven(of_round['times_ms']) for of_round in of_rounds):.2f}",
                         f"{statistics.median(time for time, *_ in slowest) - p50:.2f}",
                         f"{statistics.median(off for _, off, *_ in slowest):.2f}", f"{in_round} of {len(slowest)}",
                         f"{sum(place < 0.2 for *_, place in slowest)} of {len(slowest)}",
                         f"{len(calm)} of {len(each)}", f"{uneven(calm):.2f}"))
    print("slow inferences; off the CPU: asleep, preempted, or the CPU was the hypervisor's; usual speed: always the same work for "
          f"the CPU alone, just before and after, took at most {USUAL} times as long as at its fastest")
    print_table(rows)
    native, torpor = (geometric_mean(calm_tails[kind]) for kind in KINDS)
    print(f"p99/p50 while the CPU has its usual speed, geometric mean of the models: native {native:.2f}, remoted {torpor:.2f}")


def uneven(times):
    """p99 / p50."""
    return percentile(times, 99) / percentile(times, 50)


def show_first(models, unmet, rounds, bars):
    """The first inference of a process."""
    rows = [("model", "native ms", "remoted ms", "ratio", "weights to GPU", "remoted", "the model's first process")]
    ratios = {}
    for name in models:
        first, moved = ([statistics.median(each[kind][name][key] for each in rounds) for kind in KINDS]
                        for key in ("first_ms", "to_cuda_ms"))
        ratios[name] = first[1] / first[0]
        rows.append((name, f"{first[0]:.1f}", f"{first[1]:.1f}", f"{ratios[name]:.2f}", f"{moved[0]:.1f}", f"{moved[1]:.1f}",
                     f"{unmet[name]['first_ms']:.1f}"))
    print(f"first inference of a new process, from before .cuda() to the output on the host; {len(rounds)} rounds; "
          "last column: remoted, before the server has met the model's code")
    print_table(rows)
    late = [f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio > 0.5]
    bars.say("first inference in at most half of native's time, for each model", not late, ", ".join(late) or "all")
