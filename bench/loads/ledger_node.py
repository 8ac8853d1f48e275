"""A node of the event store, in the process that measures: no network, no coordinator, no HTTP.

Transfers go between account numbers, with ids drawn at random and without keys and metadata; each
batch is made, checked, decided, written, flushed and answered within the time that is measured.
"""

import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from bench.loads.base import FUNDS, Tally
from bench.loads.honest import HonestTally
from eventstore.commands import Packed, Packer
from eventstore.look import ListView
from eventstore.machine.machine import Limits, Machine
from eventstore.node.intake import Answer
from eventstore.node.node import Node, Settings
from eventstore.rows import COMMAND, Code, Codes, Commands, Kind, ProtocolCode, pack_texts
from eventstore.segments.frame import Identity
from eventstore.segments.writer import begin
from tandem.local.progress import Report

BATCH = 8192
# Batches that wait for their answers.
UNDER_WAY = 8
_NO_TEXTS = pack_texts(["", "", "", ""])
_OPENINGS = 5000
# More than a node takes by itself: what is measured is not to end at its limit.
_SETTINGS = Settings(machine=Limits(transfers=400_000_000))


class LedgerNode:
    """The load, on a list of its own in `folder`, which is new; `under_way` batches wait for their
    answers. Before it begins the list has `ids` transfers.
    """

    def __init__(
        self, folder: Path, accounts: int, title: str, *, under_way: int = UNDER_WAY, ids: int = 0
    ) -> None:
        self.title = title
        self._folder, self._accounts = folder, accounts
        self._under_way, self._ids = under_way, ids

    def set_up(self, report: Report) -> None:
        """The node makes its accounts when it is opened."""
        self._folder.mkdir()
        begin(self._folder)

    def open(self) -> "NodeRunner":
        node = Node.open(self._folder, Identity(uuid.uuid4(), uuid.uuid4(), 0), _SETTINGS)
        for packed in opening(self._accounts):
            node.submit(*packed).result()
        runner = NodeRunner(node, self._accounts, self._under_way)
        runner.send(self._ids)
        return runner

    def violations(self, total: Tally) -> list[str]:
        """The list is replayed from its first frame, and every outcome compared."""
        machine, _ = ListView(self._folder).replayed()
        before = -(-self._ids // BATCH) * BATCH
        return miscounted(machine, Tally(before + total.committed))


def list_bytes(folder: Path) -> int:
    """How many bytes the list in a folder has."""
    return sum(file.stat().st_size for file in folder.glob("*.segment"))


def miscounted(machine: Machine, total: Tally) -> list[str]:
    """Whether a machine has the money and the entries that it must have after `total`."""
    wrong = []
    balances = entries = 0
    # One after the other: there may be ten million.
    for number in range(len(machine)):
        account = machine.account(number).account
        balances += account.balance
        entries += account.entry_count
    if balances:
        wrong.append(f"all balances add up to {balances}")
    if entries != 2 * total.committed:
        wrong.append(f"{total.committed} transfers were answered, {entries} entries are there")
    return wrong


class NodeRunner:
    """Keeps so many batches under way. Of each it keeps how long its answer took, from when it was
    handed over.
    """

    def __init__(self, node: Node, accounts: int, under_way: int) -> None:
        self._node, self._accounts, self._under_way = node, accounts, under_way
        self._chance = np.random.default_rng(random.getrandbits(64))

    def run(self, seconds: float) -> HonestTally:
        tally = HonestTally()
        began = time.monotonic()
        self._send(tally, lambda: time.monotonic() < began + seconds)
        tally.seconds = time.monotonic() - began
        return tally

    def send(self, count: int) -> None:
        """So many transfers, rounded up to whole batches."""
        batches = iter(range(-(-count // BATCH)))
        self._send(HonestTally(), lambda: next(batches, None) is not None)

    def _send(self, tally: HonestTally, goes_on: Callable[[], bool]) -> None:
        under_way: deque[tuple[float, Future[Answer]]] = deque()
        while goes_on():
            batch = drawn(self._chance, self._accounts, is_hot=False)
            under_way.append((time.monotonic(), self._node.submit(*batch)))
            if len(under_way) == self._under_way:
                _take(under_way.popleft(), tally)
        while under_way:
            _take(under_way.popleft(), tally)

    def close(self) -> None:
        self._node.stop()


def drawn(chance: np.random.Generator, accounts: int, *, is_hot: bool) -> tuple[Commands, bytes]:
    """A batch of transfers between account numbers; with `is_hot` all into the first one."""
    commands = np.zeros(BATCH, COMMAND)
    commands["id"] = chance.integers(0, 2**64, (BATCH, 2), np.uint64)
    commands["amount"] = chance.integers(1, 101, BATCH)
    sources = chance.integers(1, accounts, BATCH)
    commands["source"] = sources
    # Another account than the source's.
    others = (sources + chance.integers(1, accounts, BATCH)) % accounts
    commands["destination"] = 0 if is_hot else others
    commands["currency"] = tuple(b"EUR\0\0\0\0\0")
    commands["kind"] = Kind.TRANSFER
    commands["protocol"] = ProtocolCode.UNNAMED
    commands["text"] = len(_NO_TEXTS)
    return commands, _NO_TEXTS * BATCH


def opening(accounts: int) -> Iterator[Packed]:
    """Commands that open so many accounts, with money."""
    for first in range(0, accounts, _OPENINGS):
        packer = Packer()
        for number in range(first, min(first + _OPENINGS, accounts)):
            packer.open(f"bench.{number}", "EUR", FUNDS * 1000)
        yield packer.packed


def _take(sent: "tuple[float, Future[Answer]]", tally: HonestTally) -> None:
    began, future = sent
    answer = future.result()
    tally.latencies.append(time.monotonic() - began)
    for piece in answer.pieces:
        count_codes(piece.outcomes.codes, tally)


def count_codes(outcomes: Codes, tally: Tally) -> None:
    """Take what became of commands into a tally."""
    codes, counts = np.unique(outcomes, return_counts=True)
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        if code == Code.DONE:
            tally.committed += count
        else:
            tally.other[Code(code).name] += count
