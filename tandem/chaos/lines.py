"""Relays between coordinators and shards, so that a network can be sick and not only gone.

A coordinator reaches each shard through a port of this process, which passes bytes on as the
line's state says.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from enum import Enum
from typing import Any

_HOST = "127.0.0.1"
_CHUNK = 65536
_CALL_TIMEOUT_S = 10.0


class State(Enum):
    WELL = "bytes pass as they come"
    DRIP = "answers come a byte at a time"
    LATE = "each packet waits before it is passed on"
    STILL = "nothing is passed on, connections stay open"


class Lines:
    """One line to each shard. Threads may share it; `close` ends all of them."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def door(self, shard: str, port: int) -> int:
        """The port through which the shard at `port` is reached; the line is made when it is first
        asked for.
        """
        if shard not in self._lines:
            self._lines[shard] = line = _Line(port)
            self._call(line.open())
        return self._lines[shard].port

    def disturb(self, shard: str, state: State, every_s: float = 0.0) -> None:
        """Change the state of a line: `every_s` passes before each byte of an answer (DRIP), or
        each packet (LATE).
        """
        self._loop.call_soon_threadsafe(self._lines[shard].become, state, every_s)

    def cut(self, shard: str) -> None:
        """Break all connections of a line; new ones can be made at once."""
        self._loop.call_soon_threadsafe(self._lines[shard].cut)

    def close(self) -> None:
        for line in self._lines.values():
            self._call(line.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_TIMEOUT_S)


class _Line:
    """Lives in the loop's thread alone."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._state = State.WELL
        self._every_s = 0.0
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, _HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def become(self, state: State, every_s: float) -> None:
        self._state, self._every_s = state, every_s
        # Whoever waits goes on by the new state.
        self._changed.set()
        self._changed = asyncio.Event()

    def cut(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            shard, requests = await asyncio.open_connection(_HOST, self._target)
        except OSError:
            answers.transport.abort()
            self._tasks.discard(task)
            return
        ways = [
            asyncio.create_task(self._pass_on(client, requests, is_answer=False)),
            asyncio.create_task(self._pass_on(shard, answers, is_answer=True)),
        ]
        try:
            # Either side hangs up for both.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # The line is cut.
        finally:
            for way in ways:
                way.cancel()
            for end in (requests, answers):
                end.transport.abort()
            self._tasks.discard(task)

    async def _pass_on(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                await self._send(data, to, is_answer=is_answer)

    async def _send(self, data: bytes, to: asyncio.StreamWriter, *, is_answer: bool) -> None:
        while self._state is State.STILL:
            await self._changed.wait()
        if self._state is State.LATE:
            await self._wait()
        while is_answer and self._state is State.DRIP and data:
            to.write(data[:1])
            data = data[1:]
            await self._wait()
        to.write(data)
        await to.drain()

    async def _wait(self) -> None:
        """For as long as the state says, or until it changes."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), self._every_s)
