"""A frame's commands before anything of it is applied: what no command may say, and what there is.

These are promises of whoever makes frames, not refusals: a fault here is a mistake of our own.
"""

from typing import NamedTuple

import numpy as np

from eventstore.machine.compiled import WORDS, Number, Truth, compiled, inlined, types
from eventstore.machine.words import (
    Words,
    amount_of,
    destination_of,
    is_by_name,
    kind_of,
    protocol_of,
    source_of,
    text_of,
)
from eventstore.rows import COMMANDS_MAX, UNLIMITED, Commands, Kind, ProtocolCode, StatusCode
from ledger.errors import Bug

_FINE, _KIND, _AMOUNT, _LIMIT, _STATUS, _PROTOCOL, _ACCOUNT = range(7)
_FAULTS = {
    _KIND: f"its kind is none of {[kind.value for kind in Kind]}",
    _AMOUNT: "a transfer moves 1 or more",
    _LIMIT: f"an overdraft limit is not negative, or {UNLIMITED} for none",
    _STATUS: f"a status is one of {[status.value for status in StatusCode]}",
    _PROTOCOL: f"a protocol is one of {[protocol.value for protocol in ProtocolCode]}",
    _ACCOUNT: "a number is given to an account by its opening, in a frame before: there are only "
    "{accounts} accounts; where that is not known the id stands in the texts",
}


class Contents(NamedTuple):
    """What a frame has in it."""

    openings: int
    transfers: int
    # (n, 2): the index of each command of which the texts name an account that must be looked up
    # or opened, and the byte at which its texts begin.
    named: np.ndarray[tuple[int, int], np.dtype[np.int64]]


def contents(commands: Commands, words: Words, texts: bytes, accounts: int) -> Contents:
    """Raises Bug if it is no frame that a machine with so many accounts can decide."""
    if len(words) > COMMANDS_MAX:
        raise Bug(f"a frame has {len(words)} commands, more than {COMMANDS_MAX}")
    named = np.empty((len(words), 2), np.int64)
    fault, at, openings, transfers, count, length = _look_through(words, accounts, named)
    if fault != _FINE:
        told = _FAULTS[fault].format(accounts=accounts)
        raise Bug(f"command {at} of a frame is {commands[at]}: {told}; nothing was applied")
    if length != len(texts):
        raise Bug(f"a frame's commands have {length} bytes of texts, and there are {len(texts)}")
    return Contents(openings, transfers, named[:count])


@inlined
def _needs_names(words: Words, i: Number) -> Truth:
    kind = kind_of(words, i)
    if kind == Kind.OPEN:
        return True
    if is_by_name(source_of(words, i)):
        return True
    return kind == Kind.TRANSFER and is_by_name(destination_of(words, i))


@inlined
def _fault(words: Words, i: Number, accounts: Number) -> Number:
    kind, amount = kind_of(words, i), amount_of(words, i)
    if kind == Kind.TRANSFER:
        if amount < 1:
            return _AMOUNT
        if protocol_of(words, i) > ProtocolCode.SAGA:
            return _PROTOCOL
        is_known = _is_known(source_of(words, i), accounts)
        return _FINE if is_known and _is_known(destination_of(words, i), accounts) else _ACCOUNT
    if kind == Kind.OPEN:
        return _FINE if amount >= UNLIMITED else _LIMIT
    if kind == Kind.STATUS:
        if amount < StatusCode.OPEN or amount > StatusCode.CLOSED:
            return _STATUS
        return _FINE if _is_known(source_of(words, i), accounts) else _ACCOUNT
    return _KIND


@inlined
def _is_known(number: Number, accounts: Number) -> Truth:
    return number < accounts or is_by_name(number)


@compiled(types.UniTuple(types.int64, 6)(WORDS, types.int64, types.int64[:, ::1]))
def _look_through(
    words: Words, accounts: Number, named: np.ndarray[tuple[int, int], np.dtype[np.int64]]
) -> tuple[int, int, int, int, int, int]:
    """The first fault and where it is; counts of openings, transfers, named; bytes of texts."""
    openings, transfers, count, start = 0, 0, 0, 0
    for i in range(len(words)):
        fault = _fault(words, i, accounts)
        if fault != _FINE:
            return fault, i, openings, transfers, count, start
        kind = kind_of(words, i)
        if kind == Kind.OPEN:
            openings += 1
        if kind == Kind.TRANSFER:
            transfers += 1
        if _needs_names(words, i):
            named[count, 0] = i
            named[count, 1] = start
            count += 1
        start += text_of(words, i)
    return _FINE, 0, openings, transfers, count, start
