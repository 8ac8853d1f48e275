"""Enters frames: what each command that was done has changed of accounts, and its entries."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.machine import Machine
from eventstore.machine.texts import Body, account_id
from eventstore.machine.words import is_named
from eventstore.reading.block import Block
from eventstore.reading.entering import ROOM_BYTES, Decided, Place, enter
from eventstore.reading.errors import NotEntered
from eventstore.reading.heads import Heads
from eventstore.reading.sha256 import new_room
from eventstore.rows import NOBODY, Code, Kind, StatusCode
from eventstore.segments.frame import Frame
from ledger.errors import Bug

_NONE_NAMED = np.zeros((0, 2), np.int64)


class StatusChange(NamedTuple):
    """An account's status, as it was before a frame has changed it."""

    account: int
    before: StatusCode


class Clerk:
    """For one thread. The machine says what the numbers of accounts are."""

    def __init__(self, heads: Heads, machine: Machine) -> None:
        self._heads, self._machine = heads, machine
        self._room = new_room(ROOM_BYTES)

    def enter(self, frame: Frame, block: Block, *, is_kept: bool) -> list[StatusChange]:
        """Enter a frame; its entries go into the block if they are to be kept. Gives the changes of
        status in their order. Raises NotEntered: nothing was entered then.
        """
        header, (commands, outcomes, _) = frame.header, frame.body
        codes = outcomes.codes.view()
        codes.flags.writeable = False
        _check_kinds(frame)
        done, is_transfer = codes == Code.DONE, commands["kind"] == Kind.TRANSFER
        changes = self._change_accounts(frame, np.flatnonzero(done & ~is_transfer))
        words = self._machine.words_of(header.seq, commands)
        named = self._names(frame, np.flatnonzero(is_named(words) & done & is_transfer))
        decided = Decided(words, codes, named, header.seq, header.time_us)
        place = Place(block.words, block.accounts, block.filled, int(is_kept))
        block.filled = int(enter(decided, self._heads.rows, self._heads.names, place, self._room))
        return changes

    def _change_accounts(self, frame: Frame, at: NDArray[np.int64]) -> list[StatusChange]:
        """Openings and changes of status: whatever their order with transfers is, the entries are
        the same.
        """
        changes = []
        for body in _bodies(frame, at):
            if body.row["kind"] == Kind.OPEN:
                currency = body.row["currency"].tobytes().rstrip(b"\0").decode("ascii")
                self._heads.open(account_id(body), currency, frame.header.time_us)
                continue
            source = int(body.row["source"])
            account = self._number(account_id(body)) if source == NOBODY else source
            status = StatusCode(int(body.row["amount"]))
            before = self._heads.set_status(account, status, frame.header.time_us)
            if before is not None:
                changes.append(StatusChange(account, before))
        return changes

    def _names(self, frame: Frame, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Decided.named`; `at` has the commands that name an account by its id."""
        if not len(at):
            return _NONE_NAMED
        commands, _, texts = frame.body
        starts = np.cumsum(commands["text"], dtype=np.int64) - commands["text"]
        named = self._machine.numbers_of(commands, np.stack([at, starts[at]], axis=1), texts)
        by_name = np.stack([commands[side][at] == NOBODY for side in ("source", "destination")], 1)
        if np.any(by_name & (named[at] < 0)):
            missing = commands[at[np.flatnonzero((by_name & (named[at] < 0)).any(axis=1))[0]]]
            raise Bug(f"the command {missing} was done, and an account that it names is not there")
        return named

    def _number(self, account: str) -> int:
        number = self._machine.number_of(account)
        if number is None:
            raise Bug(f"a command was done on {account!r}, and there is no such account")
        return number


def _check_kinds(frame: Frame) -> None:
    """An entry names both accounts by numbers, and a step knows that of its own side alone.
    Whatever became of it, who reads events or outcomes behind it would not be told all.
    """
    steps = np.flatnonzero(frame.body.commands["kind"] >= Kind.BEGIN)
    if len(steps):
        raise NotEntered(frame.header.seq, int(steps[0]))


def _bodies(frame: Frame, at: NDArray[np.int64]) -> list[Body]:
    """The commands that stand there, with their texts."""
    if not len(at):
        return []
    commands, _, texts = frame.body
    ends = np.cumsum(commands["text"], dtype=np.int64)
    starts = ends - commands["text"]
    return [Body(commands[i], texts[starts[i] : ends[i]]) for i in at.tolist()]
