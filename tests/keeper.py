"""A real ZooKeeper of a test's own, configured as it wants, and a wire to it that can be cut."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tandem.local import processes, zookeeper
from tandem.local.ports import HOST
from tandem.local.servers import find_zookeeper
from tests.cluster import reserved_port, wait_until

Cut = Callable[[], object]


class OwnKeeper:
    """A server alone. `start` may be called again after `stop`, with other lines of configuration:
    of a key that comes twice the last one counts.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._found = find_zookeeper(lambda text: None)
        self._running: tuple[int, str] | None = None
        self.port = port
        self.hosts = f"{HOST}:{port}"

    def start(self, *lines: str) -> None:
        self.spawn(*lines)
        self.await_ready()

    def await_ready(self) -> None:
        wait_until(
            lambda: zookeeper.is_ready(self.port) is None,
            60,
            lambda: "ZooKeeper does not start: " + (self._folder / "log").read_text()[-2000:],
        )

    def spawn(self, *lines: str) -> None:
        file = zookeeper.configure(self._folder, self.port)
        keys = [line.partition("=")[0] for line in lines]
        kept = [x for x in file.read_text().splitlines() if x.partition("=")[0] not in keys]
        file.write_text("\n".join([*kept, *lines, ""]))
        environment = {**os.environ, **self._found.environment}
        self._running = processes.spawn(
            zookeeper.command(self._found, file), self._folder / "log", environment, self._folder
        )

    def stop(self) -> None:
        if self._running:
            processes.kill(*self._running)
            processes.wait_for_exit(*self._running, 10)
        self._running = None


@contextmanager
def own_keeper(folder: Path, *lines: str) -> Iterator[OwnKeeper]:
    """A ZooKeeper for a block."""
    with reserved_port() as port:
        keeper = OwnKeeper(folder, port)
        try:
            keeper.start(*lines)
            yield keeper
        finally:
            keeper.stop()


@contextmanager
def ensemble(folder: Path, *lines: str) -> Iterator[tuple[OwnKeeper, OwnKeeper, "Cut"]]:
    """Three servers for a block: one of them, which never is the ensemble's leader, another one,
    and what cuts the first one off from the others while its clients still reach it.
    """
    with ExitStack() as stack:
        ports = [[stack.enter_context(reserved_port()) for _ in range(3)] for _ in range(3)]
        keepers = [
            OwnKeeper(folder / str(n), client) for n, (client, _, _) in enumerate(ports, start=1)
        ]
        wires = [stack.enter_context(wire(quorum)) for _, quorum, _ in ports[1:]]
        for n, keeper in enumerate(keepers, start=1):
            seen = [quorum for _, quorum, _ in ports]
            if n == 1:
                seen[1:] = [one.port for one in wires]
            named = [
                f"server.{m}={HOST}:{quorum}:{ports[m - 1][2]}"
                for m, quorum in enumerate(seen, start=1)
            ]
            (folder / str(n) / "data").mkdir(parents=True)
            (folder / str(n) / "data/myid").write_text(str(n))
            stack.callback(keeper.stop)
            keeper.spawn("initLimit=20", "syncLimit=20", *named, *lines)
        for keeper in keepers:
            keeper.await_ready()
        yield keepers[0], keepers[2], lambda: [one.cut() for one in wires]


class Wire:
    """Passes bytes between those who connect to `hosts` and a server, until it is `cut`: then
    connections stand, and nothing comes through, as behind a firewall that drops.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._flows = threading.Event()
        self._flows.set()
        self._server = socket.create_server((HOST, 0))
        self.port = self._server.getsockname()[1]
        self.hosts = f"{HOST}:{self.port}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                try:
                    far = socket.create_connection((HOST, self._to_port), timeout=5)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                self._flows.wait()
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self._flows.clear()

    def mend(self) -> None:
        self._flows.set()

    def close(self) -> None:
        self._server.close()
        self._flows.set()
        for end in self._open:
            end.close()


@contextmanager
def wire(to_port: int) -> Iterator[Wire]:
    made = Wire(to_port)
    try:
        yield made
    finally:
        made.close()
