"""What tests of servers need: a node behind a socket, in this process or in one of its own."""

import itertools
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from eventstore.client import Answered, Client
from eventstore.node.node import Node
from eventstore.rows import Code
from eventstore.server.handling import Handlers
from eventstore.server.limits import Limits
from eventstore.server.node_service import NodeService
from eventstore.server.server import Server
from eventstore.wire.handshake import greet
from eventstore.wire.proofs import Hello
from eventstore.wire.stream import Stream
from tests.eventstore.groups import GROUP, PATIENCE_S

SECRET = b"known to both of them"
CLUSTER = "bank"
HELLO = Hello(CLUSTER, str(GROUP.group), GROUP.branch, 1)
HOST = "127.0.0.1"


@contextmanager
def served(handlers: Handlers, limits: Limits = Limits()) -> Iterator[Server]:  # noqa: B008
    """A server in this process."""
    with Server((HOST, 0), SECRET, HELLO, handlers, limits) as server:
        yield server


@contextmanager
def served_node(node: Node, folder: Path, limits: Limits = Limits()) -> Iterator[Server]:  # noqa: B008
    """A node's server in this process."""
    service = NodeService(node, folder, GROUP)
    with served(service.handlers, limits) as server:
        yield server
        node.stop()
        service.close()


@contextmanager
def connected(address: tuple[str, int], **options: Any) -> Iterator[Client]:
    """A client that has proved itself."""
    client = Client(*address, SECRET, CLUSTER, connect_timeout_s=PATIENCE_S, **options)
    client.connect()
    try:
        yield client
    finally:
        client.close()


@contextmanager
def plain(
    address: tuple[str, int], *, proves: bool = True
) -> Iterator[tuple[socket.socket, Stream]]:
    """A connection by hand, which has proved itself unless that is not wanted."""
    with socket.create_connection(address, PATIENCE_S) as sock:
        stream = Stream(sock)
        if proves:
            greet(stream, SECRET, CLUSTER, time.monotonic() + PATIENCE_S)
        yield sock, stream


def codes(answered: Answered) -> list[Code]:
    return [Code(code) for code in answered.codes.tolist()]


class NodeProcess:
    """`python -m eventstore node`: forked from a process that has imported it, or as it is run."""

    def __init__(
        self, folder: Path, *more: str, cluster: str = CLUSTER, is_forked: bool = True
    ) -> None:
        secret = folder.parent / "secret"
        secret.write_bytes(SECRET + b"\n")
        arguments = ["node", str(folder), "--cluster", cluster, "--listen", f"{HOST}:0"]
        arguments += ["--secret-file", str(secret), *more]
        self._code: int | None = None
        self._wait: Callable[[], int]
        if is_forked:
            self._errors = self._fork(arguments, folder.parent)
        else:
            self._errors = self._run(arguments)
        self._rest = b""
        self.lines: list[dict[str, Any]] = []

    def _run(self, arguments: list[str]) -> int:
        command = [sys.executable, "-m", "eventstore", *arguments]
        reads, writes = os.pipe()
        process = subprocess.Popen(command, stderr=writes)
        os.close(writes)
        self.pid, self._wait = process.pid, lambda: process.wait(PATIENCE_S)
        return reads

    def _fork(self, arguments: list[str], folder: Path) -> int:
        fifo = folder / f"errors.{next(_NUMBERS)}"
        os.mkfifo(fifo)
        reads = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.pid = pid = _forker().ask({"arguments": arguments, "errors": str(fifo)})
        self._wait = lambda: _forker().ask({"wait": pid})
        return reads

    @property
    def address(self) -> tuple[str, int]:
        """Where it serves, once it does."""
        host, _, port = self.wait_for("node.serving")["address"].rpartition(":")
        return host, int(port)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The line of an event, that came before or comes now."""
        while not (found := [line for line in self.lines if line["event"] == event]):
            assert self._read(), f"it ended without {event}: {self.lines}"
        return found[0]

    def connected(self, **options: Any) -> Any:
        return connected(self.address, **options)

    def signal(self, number: signal.Signals) -> None:
        assert self._code is None
        os.kill(self.pid, number)

    def write_no_more(self) -> None:
        """Its next write to a file fails."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (1, 1))

    def end(self) -> int:
        """Its exit code, when it has ended by itself."""
        while self._code is None:
            if not self._read():
                self._code = self._wait()
        return self._code

    def clean_up(self) -> None:
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self._code = self._wait()
        os.close(self._errors)

    def _read(self) -> bool:
        """Some more of what it says; False when that has ended, which is when it has."""
        ready, _, _ = select.select([self._errors], [], [], PATIENCE_S)
        assert ready, f"it says nothing more: {self.lines}"
        data = os.read(self._errors, 2**16)
        *whole, self._rest = (self._rest + data).split(b"\n")
        self.lines += map(json.loads, whole)
        return bool(data)


_NUMBERS = itertools.count()


class _Forker:
    """See node_forker.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.eventstore.node_forker"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for those who run the tests.
            start_new_session=True,
        )

    def ask(self, request: dict[str, Any]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@cache
def _forker() -> _Forker:
    return _Forker()


@contextmanager
def process(folder: Path, *more: str, **options: Any) -> Iterator[NodeProcess]:
    """A node's process, which is not left behind."""
    made = NodeProcess(folder, *more, **options)
    try:
        yield made
    finally:
        made.clean_up()
