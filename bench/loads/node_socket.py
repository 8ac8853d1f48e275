"""A node of the event store by its socket: no coordinator, no HTTP, account numbers and no keys."""

import subprocess
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.loads.base import Tally
from bench.loads.ledger_node import UNDER_WAY, count_codes, drawn, miscounted, opening
from eventstore.client import Answered, Client
from eventstore.look import ListView
from tandem.local import group, processes
from tandem.local.errors import LocalError
from tandem.local.ports import HOST, reserved
from tandem.local.progress import Report

_CLUSTER, _SECRET = "bench", "of this run alone"
_ANSWER_S = 60.0
_POLL_S = 0.1


class NodeAt(NamedTuple):
    """A node's process: its list, and where it listens."""

    folder: Path
    port: int

    def connected(self) -> Client:
        """A connection to it."""
        client = Client(HOST, self.port, _SECRET.encode(), _CLUSTER)
        client.connect()
        return client


@contextmanager
def node_process(folder: Path, report: Report) -> Iterator[NodeAt]:
    """A node with the list in `folder`, or a new one there, for the block. Raises LocalError."""
    report("Starting a node of the event store")
    folder.mkdir(exist_ok=True)
    secret = group.write_secret(folder.parent, _SECRET)
    with reserved(2) as (port, reads_port):
        place = group.Place(folder, _CLUSTER, secret, port, reads_port)
        log = folder.parent / f"{folder.name}.log"
        with log.open("wb") as output:
            command = group.node_command(place, port)
            running = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _await(running, port, log)
            yield NodeAt(folder, port)
        finally:
            running.terminate()
            try:
                running.wait(group.STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _await(running: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + group.START_TIMEOUT_S
    while why := group.is_ready(port, _CLUSTER, _SECRET):
        if running.poll() is not None or time.monotonic() > deadline:
            raise LocalError(f"the node is not ready: {why}\n{processes.last_lines(log)}")
        time.sleep(_POLL_S)


class NodeSocket:
    """The load, on a node that was begun for it. With `is_hot` all pay into one account."""

    def __init__(self, node: NodeAt, accounts: int, title: str, *, is_hot: bool = False) -> None:
        self.title = title
        self._node, self._accounts, self._is_hot = node, accounts, is_hot

    def set_up(self, report: Report) -> None:
        """Open the accounts."""
        client = self._node.connected()
        for packed in opening(self._accounts):
            client.submit(*packed).result(_ANSWER_S)
        client.close()

    def open(self) -> "SocketRunner":
        return SocketRunner(self._node.connected(), self._accounts, self._is_hot)

    def violations(self, total: Tally) -> list[str]:
        """The list is replayed, beside its node, and every outcome compared."""
        machine, _ = ListView(self._node.folder).replayed()
        return miscounted(machine, total)


class SocketRunner:
    """Keeps UNDER_WAY batches under way on one connection."""

    def __init__(self, client: Client, accounts: int, is_hot: bool) -> None:
        self._client, self._accounts, self._is_hot = client, accounts, is_hot
        self._chance = np.random.default_rng()

    def run(self, seconds: float) -> Tally:
        tally = Tally()
        began = time.monotonic()
        under_way: deque[Future[Answered]] = deque()
        while time.monotonic() < began + seconds or under_way:
            if time.monotonic() < began + seconds and len(under_way) < UNDER_WAY:
                batch = drawn(self._chance, self._accounts, is_hot=self._is_hot)
                under_way.append(self._client.submit(*batch))
                continue
            answered = under_way.popleft().result(_ANSWER_S)
            if answered.rest:
                raise RuntimeError(f"commands were not taken: {answered.rest}")
            count_codes(answered.codes, tally)
        tally.seconds = time.monotonic() - began
        return tally

    def close(self) -> None:
        self._client.close()
