"""Native processes that are kept alive: a process is started when its function is asked, and ends when nobody has asked for so long as
its window says (windows.py).

`Manager` stands between the router and the processes: each function has a port here, at which requests wait until there is a process. A
process takes of its GPU what one of its model was seen to take; for whom there is no room on any GPU, the process is started, in order,
when somebody's window is over: as in `torpor simulate --system keep-alive`. Processes are children of one that has imported everything
(functions/zygote.py), so they start faster than programs that import PyTorch themselves, which favours this baseline.
"""

import asyncio
import collections
import contextlib
import os
import signal
import threading
import time

# For a process to start, and for all to end.
PATIENCE_S = 120
# A process that has been told to end is looked for so often.
LOOK_S = 0.005


class Process:
    """Of a function, from its first request on. `port` comes when it answers."""

    def __init__(self):
        self.gpu, self.pid, self.is_wrong, self.connection = None, None, False, None
        self.port = asyncio.get_running_loop().create_future()
        self.turn = asyncio.Lock()
        self.under_way, self.last_end = 0, 0.0

    async def ask(self, busy):
        """One inference; adds to {gpu: seconds}. Gives the HTTP status."""
        port = await asyncio.shield(self.port)
        async with self.turn:
            begin = time.monotonic()
            self.connection = self.connection or await asyncio.open_connection("127.0.0.1", port)
            reader, writer = self.connection
            writer.write(b"POST / HTTP/1.1\r\nhost: f\r\ncontent-length: 2\r\n\r\n{}")
            (_, status, *_), length = await read_head(reader)
            await reader.readexactly(length)
            busy[self.gpu] += time.monotonic() - begin
        # As functions/zygote.py says it.
        return b"409" if self.is_wrong else status


async def read_head(reader):
    """Of a request or an answer: the words of its first line, and how long its body is that follows."""
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
    if fields.get(b"transfer-encoding") == b"chunked":
        await reader.readuntil(b"0\r\n\r\n")
    return lines[0].split(b" "), int(fields.get(b"content-length", 0))


class Manager:
    """Of the functions of a zygote, for the length of a `with`. `rooms` is what each GPU has for processes, {gpu: bytes}, `needs` what
    one takes, {model: bytes}; `environment` gives what a process on a GPU is started with."""

    def __init__(self, zygote, members, rooms, needs, environment):
        self.zygote, self.members = zygote, {member.name: member for member in members}
        self.rooms, self.needs, self.environment = dict(rooms), needs, environment
        self.processes, self.homeless, self.windows = {}, collections.deque(), {}
        self.busy, self.starts = collections.Counter({gpu: 0.0 for gpu in rooms}), 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_):
        self._do(self._end_all())
        self._do(self._forget())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def begin(self, windows):
        """Ends all processes, and goes on with these windows, {name: window}. Nobody may ask meanwhile."""
        self._do(self._end_all())
        self.windows, self.starts = windows, 0

    @staticmethod
    async def _forget():
        """Ends connections and what else is under way."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    async def _listen(self):
        self.loop.add_reader(self.zygote.process.stdout, self._hear)
        for member in self.members.values():
            def serve(reader, writer, member=member):
                return self._serve(member, reader, writer)

            server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=128)
            member.port = server.sockets[0].getsockname()[1]

    async def _serve(self, member, reader, writer):
        """A connection of the router's, request by request. What is no POST asks whether somebody is here."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (method, *_), length = await read_head(reader)
                await reader.readexactly(length)
                status = await self._answer(member) if method == b"POST" else b"200"
                writer.write(b"HTTP/1.1 " + status + b" .\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
                await writer.drain()
        writer.close()

    async def _answer(self, member):
        """Answers a request with an HTTP status."""
        self.windows[member.name].asked(time.monotonic())
        process = self.processes.get(member.name)
        if process is None:
            process = self.processes[member.name] = Process()
            self.homeless.append(member)
            self._house()
        process.under_way += 1
        try:
            return await process.ask(self.busy)
        except (OSError, RuntimeError, asyncio.IncompleteReadError):
            return b"500"
        finally:
            process.under_way, process.last_end = process.under_way - 1, time.monotonic()
            self.loop.call_later(self.windows[member.name].seconds(), self._expire, member, process)

    def _house(self):
        """Starts processes for those that have none, in order, as far as there is room: on the GPU with most of it."""
        while self.homeless:
            member = self.homeless[0]
            need = self.needs[member.model]
            gpu = max((gpu for gpu, room in self.rooms.items() if room >= need), key=self.rooms.get, default=None)
            if gpu is None:
                return
            self.homeless.popleft()
            self.rooms[gpu] -= need
            self.processes[member.name].gpu = gpu
            self.starts += 1
            self.zygote.order(member, self.environment(gpu))

    def _hear(self):
        """What the zygote says of processes that were started."""
        for said in self.zygote.heard():
            member, process = self.members[said["name"]], self.processes[said["name"]]
            if "failed" in said:
                print(f"{member.name} did not start: {said['failed']}", flush=True)
                self._fail(process, said["failed"])
                del self.processes[member.name]
                self._is_gone(member, process)
                continue
            # The bits that the function answers with are those of its first process.
            member.sha256 = member.sha256 or said["sha256"]
            process.pid, process.is_wrong = said["pid"], said["sha256"] != member.sha256
            process.port.set_result(said["port"])

    @staticmethod
    def _fail(process, why):
        """Who waits for it is told; perhaps nobody does."""
        process.port.set_exception(RuntimeError(why))
        process.port.exception()

    def _expire(self, member, process):
        is_over = time.monotonic() - process.last_end >= self.windows[member.name].seconds() - 1e-3
        if self.processes.get(member.name) is process and not process.under_way and is_over:
            self.loop.create_task(self._end(member, process))

    async def _end(self, member, process):
        """Ends a process that answers. Its room is there when it is gone."""
        del self.processes[member.name]
        os.kill(process.pid, signal.SIGTERM)
        while os.path.exists(f"/proc/{process.pid}"):
            await asyncio.sleep(LOOK_S)
        self._is_gone(member, process)

    def _is_gone(self, member, process):
        self.rooms[process.gpu] += self.needs[member.model]
        self._house()

    async def _end_all(self):
        while self.homeless:
            self._fail(self.processes.pop(self.homeless.popleft().name), "it is over")
        present = list(self.processes.items())
        await asyncio.wait_for(asyncio.gather(*(process.port for _, process in present), return_exceptions=True), PATIENCE_S)
        for name, process in present:
            if self.processes.get(name) is process:
                await self._end(self.members[name], process)
