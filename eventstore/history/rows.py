"""What a list says of its transfers, a row for each that has an outcome: its wish, what became of
it, and the entry that it has made on either account.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from eventstore.machine.machine import Machine
from eventstore.machine.refusals import transfer_refusal
from eventstore.machine.texts import Body, transfer_of
from eventstore.reading.block import Block
from eventstore.reading.clerk import Clerk
from eventstore.reading.heads import Heads
from eventstore.reading.ledger_texts import chain_text
from eventstore.reading.shapes import Entries, as_entries
from eventstore.rows import COMMANDS_MAX, RECORDED, Code, Kind, each_text
from eventstore.segments.frame import Frame
from eventstore.verify import replay

# A row is these values, in this order; `schema.py` has their types. What an outcome does not have
# is None. The numbers of entries, and balances after them, are those of `ledger.model.Entry`.
COLUMNS = (
    *("seq", "position", "time", "transfer_id", "idempotency_key", "source", "destination"),
    *("amount", "currency", "metadata", "protocol", "status", "reason", "detail"),
    *("source_entry", "source_balance", "source_chain"),
    *("destination_entry", "destination_balance", "destination_chain"),
)
Row = tuple[Any, ...]
_NO_ENTRY = (None, None, None)
# Ids of accounts by their numbers, those that were used last: to look one up takes microseconds.
_IDS_KEPT = 2**16


class History:
    """Follows a list from its first frame. Each frame is decided again, and each outcome compared
    (rule E4).
    """

    def __init__(self, machine: Machine, accounts_max: int) -> None:
        self._machine, self._heads = machine, Heads(accounts_max)
        self._clerk = Clerk(self._heads, machine)
        self._block = Block(2 * COMMANDS_MAX)
        self._id_of = lru_cache(_IDS_KEPT)(self._heads.id_of)

    def follow(self, frame: Frame) -> None:
        """See the next frame. Raises Differs."""
        replay(frame, self._machine)
        self._block.filled = 0
        self._clerk.enter(frame, self._block, is_kept=True)

    def rows(self, frame: Frame) -> Iterator[Row]:
        """Those of the frame that was seen last."""
        header, (commands, outcomes, texts) = frame.header, frame.body
        details = {int(row["command"]): row for row in outcomes.details}
        is_booked = booked(frame).tolist()
        # A transfer that is done has two: first its source's, then its destination's.
        entries = iter(_pairs(as_entries(self._block.words[: self._block.filled])))
        for index, packed in enumerate(each_text(commands, texts)):
            if not is_booked[index]:
                continue
            body = Body(commands[index], packed)
            transfer = transfer_of(body, self._id_of)
            id_, key, *wish, protocol, _ = transfer
            code = Code(int(outcomes.codes[index]))
            if code == Code.DONE:
                became: Row = ("committed", None, None, *next(entries))
            else:
                reason, detail, _ = transfer_refusal(code, transfer, details.get(index))
                became = ("rejected", reason.value, detail, *_NO_ENTRY, *_NO_ENTRY)
            yield (header.seq, index, header.time_us, id_, key, *wish, protocol, *became)


def booked(frame: Frame) -> Any:
    """Of each command of a frame whether it is a transfer that has an outcome by it."""
    commands, outcomes, _ = frame.body
    return (commands["kind"] == Kind.TRANSFER) & np.isin(outcomes.codes, RECORDED)


def _pairs(entries: Entries) -> Iterator[Row]:
    """What rows say of entries, those of one transfer together."""
    chains = entries["chain"].tobytes()
    each = [
        (number, balance, chain_text(chains[32 * i : 32 * i + 32]))
        for i, (number, balance) in enumerate(
            zip(entries["number"].tolist(), entries["balance"].tolist(), strict=True)
        )
    ]
    return (source + destination for source, destination in zip(each[::2], each[1::2], strict=True))
