"""Functions that are served, for the length of a `with`: as clients of a node server, or natively. Both behind Torpor's router."""

import contextlib
import dataclasses
import tempfile
import time

import fleet
import machine
from measuring import server_options
from server import Server, remoted
from routing import Router, swaps_of


def add_arguments(parser, gpu_limit="25GiB", card="32GiB", distinct=16):
    """The flags of every script that deploys functions. The paper's V100s have 32 GiB, of which Torpor's functions had 25."""
    parser.add_argument("--gpu-limit", default=gpu_limit, metavar="SIZE", help="of each GPU, for Torpor's functions")
    parser.add_argument("--card", default=card, metavar="SIZE", help="of each GPU, for native processes; `whole` for all there is")
    parser.add_argument("--distinct", type=int, default=distinct, help="weight sets of a model; functions have them in turn")
    parser.add_argument("--host-pool", default="48GiB", metavar="SIZE", help="host memory for what left the GPUs; grows as needed")
    parser.add_argument("--pinned-limit", default="40GiB", metavar="SIZE", help="page-locked memory of all functions' processes")
    parser.add_argument("--start-seconds", type=float, default=200, help="who has not started then does not take part")
    parser.add_argument("--seed", type=int, default=1, help="of the times of requests")


@dataclasses.dataclass
class Deployment:
    """Who has started, and the router before them. There is no server where they are native."""

    members: list
    router: Router
    server: Server = None

    def gpu_seconds(self):
        """{gpu: seconds of work so far}: in which functions used it, as the node server counts; natively, in which its processes had
        a request."""
        if self.server:
            return self.router.gpu_seconds()
        used = {}
        for member in self.members:
            used[member.gpu] = used.get(member.gpu, 0.0) + (member.figures() or {"busy_s": 0.0})["busy_s"]
        return used

    def load(self, wanted, records, *flags, names=()):
        """Loads the wanted functions, after one request to each. Gives what routing.py says of it, and what the GPUs did meanwhile."""
        unanswered = self.router.warm(wanted)
        turns, work, begin = swaps_of(self.server) if self.server else {}, self.gpu_seconds(), time.monotonic()
        figures = self.router.load(records, *flags, names=names)
        seconds = time.monotonic() - begin
        after = swaps_of(self.server) if self.server else {}
        gpus = {str(gpu): round((used - work.get(gpu, 0.0)) / seconds, 4) for gpu, used in sorted(self.gpu_seconds().items())}
        return {**figures, "not_warm": len(unanswered), "seconds": round(seconds, 2), "busy": gpus,
                **{f"turns_{key}": after[key] - turns[key] for key in after}}


def scheduler_section(settings):
    """Lines of [scheduler]."""
    return [f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"' for key, value in settings.items()]


@contextlib.contextmanager
def torpor(given, wanted, logs, name, server_flags=(), scheduler=None):
    """Functions of a server of their own, which shares all GPUs. `scheduler` is {key: value} of that section."""
    section = scheduler_section(scheduler or {})
    settings = [f'[memory]\nhost_pool = "{given.host_pool}"\npinned_limit = "{given.pinned_limit}"\n[scheduler]', *section,
                *(f"[functions.{member.name}]\nslo_ms = {member.slo_ms}" for member in wanted)]
    with contextlib.ExitStack() as stack:
        flags = (*server_options(given), "--gpu-limit", given.gpu_limit, *server_flags)
        server = stack.enter_context(Server(logs / f"{name}-server.log", *flags, settings="\n".join(settings) + "\n"))
        begin = time.monotonic()
        zygote = fleet.Zygote([member.model for member in wanted], logs, name, remoted(server, "zygote"))
        stack.callback(zygote.end)
        zygote.wait_ready()
        directories = {row["name"]: row["directory"] for row in server.ask("functions")}
        started = zygote.start(wanted, given.start_seconds, lambda member: {"TORPOR_SERVER": directories[member.name]})
        own = machine.private_bytes(started[-1].pid) >> 20 if started else 0
        print(f"{name}: {len(started)} functions of Torpor's after {time.monotonic() - begin:.0f} s; a process has {own} MiB of its own",
              flush=True)
        router = Router(wanted, server.directory, logs / f"{name}-router.log", section)
        yield Deployment(started, stack.enter_context(router), server)


@contextlib.contextmanager
def native(given, wanted, logs, name, choose=lambda start, wanted: start(wanted)):
    """Native processes of those wanted, each pinned to its GPU. `choose` starts some with the function that it gets, and gives those that
    have started. Over simulated GPUs they are remoted, too."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        prefix = []
        if given.simulated:
            prefix = remoted(stack.enter_context(Server(logs / f"{name}-server.log", *server_options(given))), "native")
        zygote = fleet.Zygote([member.model for member in wanted], logs, name, prefix)
        stack.callback(zygote.end)
        zygote.wait_ready()

        def start(some):
            return zygote.start(some, given.start_seconds,
                                lambda member: {} if given.simulated else {"CUDA_VISIBLE_DEVICES": str(member.gpu)})

        started = choose(start, wanted)
        print(f"{name}: {len(started)} native functions", flush=True)
        yield Deployment(started, stack.enter_context(Router(wanted, folder, logs / f"{name}-router.log")))


def start_what_fits(given, start, wanted, gpus):
    """Starts a process of each model, sees what it takes, and then as many of the others as their GPUs have memory for: `given.card` on
    each, or `whole`. Gives those that have started."""
    if given.simulated:
        return start(wanted[:max(2, len(wanted) // 2)])
    before = [machine.card_used_bytes(gpu) for gpu in range(gpus)]
    rooms = [machine.card_total_bytes(gpu) - before[gpu] for gpu in range(gpus)]
    if given.card != "whole":
        rooms = [min(room, machine.size(given.card)) for room in rooms]
    each, started, rest = {}, [], []
    for member in wanted:
        if member.model in each:
            rest.append(member)
            continue
        used = machine.card_used_bytes(member.gpu)
        started += start([member])
        each[member.model] = machine.card_used_bytes(member.gpu) - used
        rooms[member.gpu] -= each[member.model]
    fitting = []
    for member in rest:
        if rooms[member.gpu] >= each[member.model]:
            rooms[member.gpu] -= each[member.model]
            fitting.append(member)
    taken = ", ".join(f"{model} {taken >> 20}" for model, taken in each.items())
    print(f"MiB that a native process takes: {taken}; {len(started) + len(fitting)} of {len(wanted)} fit", flush=True)
    return sorted(started + start(fitting), key=lambda member: member.name)
