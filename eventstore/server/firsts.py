"""What was decided when an id was first used: read from the list, in frames that are durable."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.refusals import Terms, refusal
from eventstore.machine.texts import Body, advance_texts, transfer_of
from eventstore.rows import Code, Kind, place_parts
from eventstore.segments.frame import Frame
from eventstore.segments.reader import Reader
from eventstore.wire.questions import At, First, Known
from ledger.errors import Bug
from ledger.model import Transfer

# Who sends a batch again asks for the commands of few frames, again and again.
_KEPT = 16
_TERMS_KEPT = 2**16


class _Found(NamedTuple):
    """A frame, where the texts of each of its commands end, and the details by commands."""

    frame: Frame
    ends: NDArray[np.int64]
    details: dict[int, np.void]


class Firsts:
    """For one thread. `terms` gives what the opening of an account with a number has said."""

    def __init__(self, reader: Reader, terms: Callable[[int], Terms]) -> None:
        self._reader, self._accounts = reader, _Accounts(lru_cache(_TERMS_KEPT)(terms))
        self._find = lru_cache(_KEPT)(self._read)

    def at(self, place: int) -> First:
        """What was decided of the transfer that stands at a place of the list: see `rows.place`."""
        body, at = self._body(place)
        transfer = self._transfer(*self._begun(place))
        return First(transfer, *self._why(place, body), at)

    def known(self, place: int, *, is_other: bool) -> Known:
        """The same for whoever has sent that transfer again, or another one under its id."""
        body, at = self._body(place)
        other = self._transfer(*self._begun(place)) if is_other else None
        return Known(other, *self._why(place, body), at)

    def _body(self, place: int) -> tuple[Body, At]:
        seq, index = place_parts(place)
        frame, ends, _ = self._find(seq)
        row, end = frame.body.commands[index], int(ends[index])
        body = Body(row, frame.body.texts[end - int(row["text"]) : end])
        return body, At(seq, frame.header.time_us)

    def _begun(self, place: int) -> tuple[Body, At]:
        """The command with the transfer's body: of what an ADVANCE has decided the BEGIN."""
        body, at = self._body(place)
        if body.row["kind"] != Kind.ADVANCE:
            return body, at
        seq, index = place_parts(place)
        return self._body(int(self._find(seq).details[index]["a"]))

    def _transfer(self, body: Body, at: At) -> Transfer:
        return transfer_of(body, lambda number: self._accounts.terms(number).id, at.time_us)

    def _why(self, place: int, body: Body) -> tuple[str | None, str | None]:
        """Reason and detail of a refusal; of what is committed there are none."""
        seq, index = place_parts(place)
        frame, _, details = self._find(seq)
        code = Code(int(frame.body.outcomes.codes[index]))
        if code == Code.DONE:
            return None, None
        if code == Code.STEPPED:
            told = advance_texts(body)
            return told.reason or None, told.detail or None
        why = refusal(code, body, details.get(index), self._accounts)
        return why.reason.value, why.detail

    def _read(self, seq: int) -> _Found:
        frame = self._reader.find(seq)
        commands, (_, details), _ = frame.body
        by_command = dict(zip(details["command"].tolist(), details, strict=True))
        return _Found(frame, np.cumsum(commands["text"], dtype=np.int64), by_command)


class _Accounts(NamedTuple):
    """A Directory of those that commands name by their numbers."""

    terms: Callable[[int], Terms]

    def number_of(self, account: str) -> int | None:
        """No refusal of a transfer asks for it."""
        raise Bug(f"the number of {account} was asked for, to say why a transfer was refused")
