"""Has transfers decided by a group's node, and says what became of them as every shard does."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import numpy as np

from coordinator.shards.group.directory import Directory
from coordinator.shards.group.link import Link, translate
from coordinator.shards.group.packed import GroupPacked, NamedPacked, NumberedPacked
from eventstore.client import Answered
from eventstore.commands import Packed as Commands
from eventstore.commands import Packer
from eventstore.machine.refusals import transfer_refusal
from eventstore.rows import Code
from eventstore.wire.answers import Piece
from eventstore.wire.questions import First, Known
from ledger.columns import Columns, NumberedColumns
from ledger.errors import Bug
from ledger.model import Refusal, Transfer
from shard_client.columns import DecidedTogether, Packed
from shard_client.errors import ShardError, TryAgain
from shard_client.node import Decider
from shard_client.records import Decided, StoredTransfer, TransferStatus

T = TypeVar("T")

_DONE = int(Code.DONE)
_TURN = 500


class GroupDecider(Decider):
    """See Decider. `now` is monotonic, in seconds."""

    def __init__(self, link: Link, now: Callable[[], float]) -> None:
        self._link = link
        self._now = now
        self._directory = Directory(link)
        # When those were sent that are not answered, by the futures that will be.
        self._sent: dict[int, float] = {}

    @property
    def oldest_s(self) -> float:
        """For how long the first one waits that has no answer; 0 if there is none."""
        sent = list(self._sent.values())
        return self._now() - sent[0] if sent else 0.0

    def decide(self, transfers: Sequence[Transfer]) -> "Future[list[Decided | ShardError]]":
        packer = Packer()
        for transfer in transfers:
            packer.transfer(transfer)
        return self._send(packer.packed, partial(decided, self._link.shard, transfers))

    def pack(
        self, columns: Columns | NumberedColumns, protocol: str, now: int, deadline: float
    ) -> GroupPacked:
        if isinstance(columns, Columns):
            return NamedPacked(columns, protocol, now)
        for numbers in (columns.source, columns.destination):
            self._directory.learn(numbers, deadline)
        return NumberedPacked(columns, protocol, now, self._directory)

    def decide_packed(self, packed: Packed) -> "Future[DecidedTogether]":
        if not isinstance(packed, GroupPacked):
            raise Bug(f"{packed} was packed for another kind of shard")
        commands = Commands(packed.commands, packed.texts)
        return self._send(commands, partial(decided_together, self._link.shard, packed))

    def _send(self, commands: Commands, read: Callable[[Answered], T]) -> "Future[T]":
        """Send commands; the future has what `read` makes of their answer. Raises ShardError."""
        told: Future[T] = Future()
        answered = self._link.submit(*commands)
        self._sent[id(told)] = self._now()

        def tell(found: "Future[Answered]") -> None:
            self._sent.pop(id(told), None)
            try:
                told.set_result(read(found.result()))
            except Exception as error:
                told.set_exception(translate(self._link.shard, error))

        answered.add_done_callback(tell)
        return told


def decided(
    shard: str, transfers: Sequence[Transfer], answered: Answered
) -> list[Decided | ShardError]:
    """What became of transfers, by what a node has answered to their commands."""
    found: list[Decided | ShardError] = []
    for piece in answered.pieces:
        details = _details_of(piece)
        for index, code in enumerate(piece.outcomes.codes.tolist(), start=piece.first):
            _give_way(index)
            known, detail = answered.firsts.get(index), details.get(index - piece.first)
            found.append(_decided(transfers[index], code, piece, known, detail))
    left = len(transfers) - len(found)
    return found + [_rest(shard, len(transfers), left, answered) for _ in range(left)]


def decided_together(shard: str, packed: GroupPacked, answered: Answered) -> DecidedTogether:
    """The same of packed transfers."""
    taken = 0
    others: dict[int, Decided] = {}
    for piece in answered.pieces:
        codes, details = piece.outcomes.codes, _details_of(piece)
        for offset in np.flatnonzero(codes != _DONE).tolist():
            index = piece.first + offset
            _give_way(len(others))
            known, detail = answered.firsts.get(index), details.get(offset)
            others[index] = _decided(packed.sent(index), int(codes[offset]), piece, known, detail)
        taken += len(codes)
    left = packed.size - taken
    rest = _rest(shard, packed.size, left, answered) if left else None
    frames = [(piece.first, piece.seq) for piece in answered.pieces]
    return DecidedTogether(taken, frames, others, rest)


def _give_way(count: int) -> None:
    """After so many of them others of this process have their turn: each takes some ten us."""
    if count % _TURN == _TURN - 1:
        time.sleep(0)


def _details_of(piece: Piece) -> dict[int, np.void]:
    """The details of a piece, by the command's place in it."""
    details = piece.outcomes.details
    return dict(zip(details["command"].tolist(), details, strict=True)) if len(details) else {}


def _decided(
    transfer: Transfer, code: int, frame: Piece, known: Known | None, detail: np.void | None
) -> Decided:
    if code == _DONE:
        return _recorded(transfer, frame, None, None)
    if known:
        return _known(transfer, known)
    return _refused(transfer, frame, transfer_refusal(Code(code), transfer, detail))


def _rest(shard: str, count: int, left: int, answered: Answered) -> ShardError:
    if answered.rest is None:
        raise Bug(f"of {count} commands {left} have no outcome, and no reason is told")
    return TryAgain(shard, answered.rest)


def stored_transfer(first: First) -> StoredTransfer:
    """What a group has recorded of a transfer."""
    status = TransferStatus.REJECTED if first.reason else TransferStatus.COMMITTED
    seq, time_us = first.at.seq, first.at.time_us
    return StoredTransfer(first.transfer, "", status, first.reason, first.detail, time_us, seq)


def _known(asked: Transfer, known: Known) -> Decided:
    # What was asked then stands as it was asked now, if it was the same.
    first = known.other or asked._replace(created_at=known.at.time_us)
    stored = stored_transfer(First(first, known.reason, known.detail, known.at))
    return Decided(stored, None, was_known=True)


def _refused(transfer: Transfer, frame: Piece, refusal: Refusal) -> Decided:
    if not refusal.is_recorded:
        return Decided(None, refusal, was_known=False)
    return _recorded(transfer, frame, refusal.reason.value, refusal.detail)


def _recorded(transfer: Transfer, frame: Piece, reason: str | None, detail: str | None) -> Decided:
    # A group takes a transfer when it decides it.
    taken = Transfer(*transfer[:-1], frame.time_us)
    status = TransferStatus.REJECTED if reason else TransferStatus.COMMITTED
    stored = StoredTransfer(taken, "", status, reason, detail, frame.time_us, frame.seq)
    return Decided(stored, None, was_known=False)
