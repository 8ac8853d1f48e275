"""A node of the event store, in the process that measures: no network, no coordinator, no HTTP.

Transfers go between account numbers, with ids drawn at random and without keys and metadata; each
batch is made, checked, decided, written, flushed and answered within the time that is measured.
"""

import random
import time
import uuid
from collections import deque
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from bench.loads.base import FUNDS, Tally
from eventstore.commands import Packer
from eventstore.look import ListView
from eventstore.machine.machine import Machine
from eventstore.node.intake import Answer
from eventstore.node.node import Node
from eventstore.rows import COMMAND, Code, Kind, ProtocolCode, pack_texts
from eventstore.segments.frame import Identity
from eventstore.segments.writer import begin
from tandem.local.progress import Report

BATCH = 8192
# Batches that wait for their answers.
UNDER_WAY = 8
_NO_TEXTS = pack_texts(["", "", "", ""])
_OPENINGS = 5000


class LedgerNode:
    """The load, on a list of its own in `folder`. With `is_hot` all pay into one account."""

    def __init__(self, folder: Path, accounts: int, title: str, *, is_hot: bool = False) -> None:
        self.title = title
        self._folder, self._accounts, self._is_hot = folder, accounts, is_hot

    def set_up(self, report: Report) -> None:
        """The node makes its accounts when it is opened."""
        self._folder.mkdir()
        begin(self._folder)

    def open(self) -> "NodeRunner":
        node = Node.open(self._folder, Identity(uuid.uuid4(), uuid.uuid4(), 0))
        for first in range(0, self._accounts, _OPENINGS):
            packer = Packer()
            for number in range(first, min(first + _OPENINGS, self._accounts)):
                packer.open(f"bench.{number}", "EUR", FUNDS * 1000)
            node.submit(*packer.packed).result()
        return NodeRunner(node, self._accounts, self._is_hot)

    def violations(self, total: Tally) -> list[str]:
        """The list is replayed from its first frame, and every outcome compared."""
        view = ListView(self._folder)
        machine, _ = view.replayed()
        wrong = []
        if (all_of_it := _sum(machine)) != 0:
            wrong.append(f"all balances add up to {all_of_it}")
        return wrong

    def bytes_on_disk(self) -> int:
        return sum(file.stat().st_size for file in self._folder.glob("*.segment"))


def _sum(machine: Machine) -> int:
    return sum(machine.account(number).account.balance for number in range(len(machine)))


class NodeRunner:
    """Keeps UNDER_WAY batches under way."""

    def __init__(self, node: Node, accounts: int, is_hot: bool) -> None:
        self._node, self._accounts, self._is_hot = node, accounts, is_hot
        self._chance = np.random.default_rng(random.getrandbits(64))

    def run(self, seconds: float) -> Tally:
        tally = Tally()
        began = time.monotonic()
        under_way: deque[Future[Answer]] = deque()
        while time.monotonic() < began + seconds or under_way:
            if time.monotonic() < began + seconds and len(under_way) < UNDER_WAY:
                under_way.append(self._node.submit(*self._batch()))
                continue
            _count(under_way.popleft().result(), tally)
        tally.seconds = time.monotonic() - began
        return tally

    def _batch(self) -> tuple[np.ndarray, bytes]:
        commands = np.zeros(BATCH, COMMAND)
        commands["id"] = self._chance.integers(0, 2**64, (BATCH, 2), np.uint64)
        commands["amount"] = self._chance.integers(1, 101, BATCH)
        sources = self._chance.integers(1, self._accounts, BATCH)
        commands["source"] = sources
        # Another account than the source's.
        others = (sources + self._chance.integers(1, self._accounts, BATCH)) % self._accounts
        commands["destination"] = 0 if self._is_hot else others
        commands["currency"] = tuple(b"EUR\0\0\0\0\0")
        commands["kind"] = Kind.TRANSFER
        commands["protocol"] = ProtocolCode.UNNAMED
        commands["text"] = len(_NO_TEXTS)
        return commands, _NO_TEXTS * BATCH

    def close(self) -> None:
        self._node.stop()


def _count(answer: Answer, tally: Tally) -> None:
    for piece in answer.pieces:
        codes, counts = np.unique(piece.outcomes.codes, return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            if code == Code.DONE:
                tally.committed += count
            else:
                tally.other[Code(code).name] += count
