"""Has transfers decided by a group's node, and says what became of them as every shard does."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from coordinator.shards.group.link import Link, translate
from eventstore.client import Answered
from eventstore.commands import Packer
from eventstore.machine.refusals import transfer_refusal
from eventstore.rows import Code
from eventstore.wire.answers import Piece
from eventstore.wire.questions import First, Known
from ledger.errors import Bug
from ledger.model import Refusal, Transfer
from shard_client.errors import ShardError, TryAgain
from shard_client.node import Decider
from shard_client.records import Decided, StoredTransfer, TransferStatus

_DONE = int(Code.DONE)


class GroupDecider(Decider):
    """See Decider. `now` is monotonic, in seconds."""

    def __init__(self, link: Link, now: Callable[[], float]) -> None:
        self._link = link
        self._now = now
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
        told: Future[list[Decided | ShardError]] = Future()
        answered = self._link.submit(*packer.packed)
        self._sent[id(told)] = self._now()

        def tell(found: "Future[Answered]") -> None:
            self._sent.pop(id(told), None)
            shard = self._link.shard
            try:
                told.set_result(decided(shard, transfers, found.result()))
            except Exception as error:
                told.set_exception(translate(shard, error))

        answered.add_done_callback(tell)
        return told


def decided(
    shard: str, transfers: Sequence[Transfer], answered: Answered
) -> list[Decided | ShardError]:
    """What became of transfers, by what a node has answered to their commands."""
    found: list[Decided | ShardError] = []
    for piece in answered.pieces:
        codes, details = piece.outcomes
        by_command = dict(zip(details["command"].tolist(), details, strict=True))
        for index, code in enumerate(codes.tolist(), start=piece.first):
            if code == _DONE:
                found.append(_recorded(transfers[index], piece, None, None))
            elif known := answered.firsts.get(index):
                found.append(_known(transfers[index], known))
            else:
                refusal = transfer_refusal(
                    Code(code), transfers[index], by_command.get(index - piece.first)
                )
                found.append(_refused(transfers[index], piece, refusal))
    left = len(transfers) - len(found)
    if left and answered.rest is None:
        raise Bug(f"of {len(transfers)} commands {left} have no outcome, and no reason is told")
    return found + [TryAgain(shard, answered.rest or "") for _ in range(left)]


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
