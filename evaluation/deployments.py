"""Functions that are served, for the length of a `with`: as clients of a node server, or natively. Both behind Torpor's router."""

import contextlib
import dataclasses
import os
import signal
import tempfile
import time

import fleet
import machine
import open_loop
import windows
from keep_alive import Manager
from measuring import server_options
from routing import Router, endpoints, settings
from server import Server, remoted


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
    """Who has started, and the router before them. There is no server where they are native, and a manager where they are kept alive."""

    members: list
    router: Router
    server: Server = None
    manager: Manager = None
    foreseen: bool = False

    def gpu_seconds(self):
        """{gpu: seconds of work so far}: in which functions used it, as the node server counts; natively, in which its processes had
        a request."""
        if self.server:
            return self.router.gpu_seconds()
        if self.manager:
            return dict(self.manager.busy)
        used = {}
        for member in self.members:
            used[member.gpu] = used.get(member.gpu, 0.0) + (member.figures() or {"busy_s": 0.0})["busy_s"]
        return used

    def load(self, wanted, records, *flags, names=()):
        """Loads the wanted functions, after one request to each (those that are kept alive begin without processes). Gives what open_loop.py
        says of it, and what the GPUs did meanwhile."""
        unanswered = [] if self.manager else open_loop.warm(self.router, wanted)
        turns, work, begin = swaps_of(self.server) if self.server else {}, self.gpu_seconds(), time.monotonic()
        figures = open_loop.load(self.router, records, *flags, names=names)
        seconds = time.monotonic() - begin
        after = swaps_of(self.server) if self.server else {}
        gpus = {str(gpu): round((used - work.get(gpu, 0.0)) / seconds, 4) for gpu, used in sorted(self.gpu_seconds().items())}
        starts = {"process_starts": self.manager.starts} if self.manager else {}
        return {**figures, "not_warm": len(unanswered), "seconds": round(seconds, 2), "busy": gpus, **starts,
                **{f"turns_{key}": after[key] - turns[key] for key in after}}

    def expect(self, trace):
        """Is called before a trace of replay.py is to come."""
        if self.manager:
            self.manager.begin(windows.of_trace(trace, self.manager.members, self.foreseen))


def swaps_of(server):
    """Requests, and those for which memory was brought, of all functions of a server so far."""
    rows = server.ask("functions")
    return {key: sum(row[key] for row in rows) for key in ("requests", "hits", "swaps")}


def routed(wanted, directory, logs, name, scheduler=None):
    """The router before those of `wanted` that have started."""
    config = logs / f"{name}-router.toml"
    config.write_text(settings(endpoints(wanted), scheduler))
    return Router(config, directory, logs / f"{name}-router.log")


@contextlib.contextmanager
def torpor(given, wanted, logs, name, server_flags=(), scheduler=None):
    """Functions of a server of their own, which shares all GPUs. `scheduler` is {key: value} of that section."""
    text = settings({member.name: {"slo_ms": member.slo_ms} for member in wanted}, scheduler,
                    memory={"host_pool": given.host_pool, "pinned_limit": given.pinned_limit})
    with contextlib.ExitStack() as stack:
        flags = (*server_options(given), "--gpu-limit", given.gpu_limit, *server_flags)
        server = stack.enter_context(Server(logs / f"{name}-server.log", *flags, settings=text))
        begin = time.monotonic()
        zygote = fleet.Zygote([member.model for member in wanted], logs, name, remoted(server, "zygote"))
        stack.callback(zygote.end)
        zygote.wait_ready()
        directories = {row["name"]: row["directory"] for row in server.ask("functions")}
        started = zygote.start(wanted, given.start_seconds, lambda member: {"TORPOR_SERVER": directories[member.name]})
        own = machine.private_bytes(started[-1].pid) >> 20 if started else 0
        print(f"{name}: {len(started)} functions of Torpor's after {time.monotonic() - begin:.0f} s; a process has {own} MiB of its own",
              flush=True)
        yield Deployment(started, stack.enter_context(routed(wanted, server.directory, logs, name, scheduler)), server)


@contextlib.contextmanager
def native_zygote(given, wanted, logs, name):
    """What native functions come from, and what gives the environment of one on a GPU. Over simulated GPUs they are remoted, too."""
    with contextlib.ExitStack() as stack:
        prefix = []
        if given.simulated:
            prefix = remoted(stack.enter_context(Server(logs / f"{name}-server.log", *server_options(given))), "native")
        zygote = fleet.Zygote([member.model for member in wanted], logs, name, prefix)
        stack.callback(zygote.end)
        zygote.wait_ready()
        yield zygote, lambda gpu: {} if given.simulated else {"CUDA_VISIBLE_DEVICES": str(gpu)}


@contextlib.contextmanager
def native(given, wanted, logs, name, gpus=None):
    """Native processes of those wanted, each pinned to its GPU: as many as so many GPUs have memory for, or without `gpus` all."""
    with native_zygote(given, wanted, logs, name) as (zygote, environment), tempfile.TemporaryDirectory() as folder:
        start = starter(given, zygote, environment)
        started = start_what_fits(given, start, wanted, gpus) if gpus else start(wanted)
        print(f"{name}: {len(started)} native functions", flush=True)
        with routed(wanted, folder, logs, name) as router:
            yield Deployment(started, router)


@contextlib.contextmanager
def kept_alive(given, wanted, logs, name, gpus, foreseen):
    """Native processes that come and go (keep_alive.py), on all GPUs. `foreseen`: as one who knows the whole trace would keep them."""
    with native_zygote(given, wanted, logs, name) as (zygote, environment), tempfile.TemporaryDirectory() as folder:
        rooms = free_rooms(given, gpus)
        needs, started = needs_of_models(given, starter(given, zygote, environment), wanted)
        for member in started:
            os.kill(member.pid, signal.SIGKILL)
        with Manager(zygote, wanted, rooms, needs, environment) as manager, routed(wanted, folder, logs, name) as router:
            yield Deployment(list(wanted), router, manager=manager, foreseen=foreseen)


def starter(given, zygote, environment):
    """What starts members and gives those that have started."""
    return lambda some: zygote.start(some, given.start_seconds, lambda member: environment(member.gpu))


def free_rooms(given, gpus):
    """{gpu: bytes} for native processes: `given.card` of each, as far as it is free, or `whole`."""
    if given.simulated:
        # So little that some do not fit, and others wait for each other.
        return dict.fromkeys(machine.gpu_numbers(gpus), machine.size(given.gpu_limit) // 2)
    rooms = {gpu: machine.card_total_bytes(gpu) - machine.card_used_bytes(gpu) for gpu in machine.gpu_numbers(gpus)}
    return rooms if given.card == "whole" else {gpu: min(room, machine.size(given.card)) for gpu, room in rooms.items()}


def needs_of_models(given, start, wanted):
    """Starts a process of each model, and sees what it takes of its GPU. Gives {model: bytes} and who has started."""
    needs, all_started = {}, []
    for member in {member.model: member for member in reversed(wanted)}.values():
        before = None if given.simulated else machine.card_used_bytes(member.gpu)
        if not (started := start([member])):
            raise RuntimeError(f"{member.name} did not start: {member.failed}")
        needs[member.model] = member.weights_bytes if given.simulated else machine.card_used_bytes(member.gpu) - before
        all_started += started
    print("MiB that a native process takes:", ", ".join(f"{model} {taken >> 20}" for model, taken in needs.items()), flush=True)
    return needs, all_started


def start_what_fits(given, start, wanted, gpus):
    """Starts a process of each model, and then as many of the others as their GPUs have memory for. Gives those that have started."""
    rooms = free_rooms(given, gpus)
    needs, started = needs_of_models(given, start, wanted)
    for member in started:
        rooms[member.gpu] -= needs[member.model]
    fitting = []
    for member in (member for member in wanted if member not in started):
        if rooms[member.gpu] >= needs[member.model]:
            rooms[member.gpu] -= needs[member.model]
            fitting.append(member)
    print(f"{len(started) + len(fitting)} of {len(wanted)} fit", flush=True)
    return sorted(started + start(fitting), key=lambda member: member.name)
