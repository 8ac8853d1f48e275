"""A frame's commands before anything of it is applied: what no command may say, and what there is.

These are promises of whoever makes frames, not refusals: a fault here is a mistake of our own.
"""

from typing import NamedTuple

import numpy as np

from eventstore.machine.compiled import WORDS, Number, Truth, compiled, inlined, types
from eventstore.machine.currencies import is_currency
from eventstore.machine.protocols import is_call, is_phased, is_step
from eventstore.machine.words import (
    Words,
    amount_of,
    currency_of,
    destination_of,
    id_of,
    is_by_name,
    kind_of,
    protocol_of,
    source_of,
    step_of,
    text_of,
)
from eventstore.rows import COMMANDS_MAX, UNLIMITED, Commands, Kind, ProtocolCode, StatusCode
from ledger.errors import Bug

_FINE, _KIND, _AMOUNT, _LIMIT, _STATUS, _PROTOCOL, _ACCOUNT, _CURRENCY, _NONE, _SPARE = range(10)
_UNUSED, _PHASED, _CALL, _STEP, _OTHER = range(10, 15)
_FAULTS = {
    _KIND: f"its kind is none of {[kind.value for kind in Kind]}",
    _AMOUNT: "a transfer moves 1 or more",
    _LIMIT: f"an overdraft limit is not negative, or {UNLIMITED} for none",
    _STATUS: f"a status is one of {[status.value for status in StatusCode]}",
    _PROTOCOL: f"a protocol is one of {[protocol.value for protocol in ProtocolCode]}",
    _ACCOUNT: "a number is given to an account by its opening, in a frame before: there are only "
    "{accounts} accounts; where that is not known the id stands in the texts",
    _CURRENCY: "a currency is 3 to 8 of A-Z and 0-9, with zero bytes behind them",
    _NONE: "a status has no currency: its bytes are zero",
    _SPARE: "what is spare is zero: only a CALL and an ADVANCE have a step",
    _UNUSED: "what its kind does not use is zero, and an account that it does not name NOBODY",
    _PHASED: "it belongs to a protocol of phases, which is "
    f"{ProtocolCode.TCC.value} (TC/C) or {ProtocolCode.SAGA.value} (Saga)",
    _CALL: "its protocol makes no such call",
    _STEP: "its protocol's table has no such step",
    _OTHER: "the other shard's account has no number here: it is NOBODY, and its id in the texts",
}
_EVENT_AT, _BYTE = 8, 0xFF


class Contents(NamedTuple):
    """What a frame has in it."""

    openings: int
    # Those that may use up an id; those that may be the first of an attempt; all of TC/C and Saga.
    transfers: int
    attempts: int
    steps: int
    # (n, 2): the index of each command of which the texts name an account that must be looked up
    # or opened, and the byte at which its texts begin.
    named: np.ndarray[tuple[int, int], np.dtype[np.int64]]


def contents(commands: Commands, words: Words, texts: bytes, accounts: int) -> Contents:
    """Raises Bug if it is no frame that a machine with so many accounts can decide."""
    if len(words) > COMMANDS_MAX:
        raise Bug(f"a frame has {len(words)} commands, more than {COMMANDS_MAX}")
    named = np.empty((len(words), 2), np.int64)
    found = _look_through(words, accounts, named)
    fault, at, openings, transfers, attempts, steps, count, length = found
    if fault != _FINE:
        told = _FAULTS[fault].format(accounts=accounts)
        raise Bug(f"command {at} of a frame is {commands[at]}: {told}; nothing was applied")
    if length != len(texts):
        raise Bug(f"a frame's commands have {length} bytes of texts, and there are {len(texts)}")
    return Contents(openings, transfers, attempts, steps, named[:count])


@inlined
def _needs_names(words: Words, i: Number) -> Truth:
    kind = kind_of(words, i)
    if kind == Kind.OPEN or kind >= Kind.BEGIN:
        return True
    if is_by_name(source_of(words, i)):
        return True
    return kind == Kind.TRANSFER and is_by_name(destination_of(words, i))


@inlined
def _fault(words: Words, i: Number, accounts: Number) -> Number:
    kind = kind_of(words, i)
    if step_of(words, i) != 0 and kind != Kind.CALL and kind != Kind.ADVANCE:
        return _SPARE
    if kind == Kind.TRANSFER:
        return _fault_of_transfer(words, i, accounts)
    if kind == Kind.OPEN:
        return _fault_of_opening(words, i)
    if kind == Kind.STATUS:
        return _fault_of_status(words, i, accounts)
    if kind == Kind.BEGIN:
        return _fault_of_begin(words, i, accounts)
    if kind == Kind.CALL:
        return _fault_of_call(words, i, accounts)
    if kind == Kind.ADVANCE:
        return _fault_of_advance(words, i)
    return _KIND


@inlined
def _fault_of_transfer(words: Words, i: Number, accounts: Number) -> Number:
    if amount_of(words, i) < 1:
        return _AMOUNT
    if not is_currency(currency_of(words, i)):
        return _CURRENCY
    if protocol_of(words, i) > ProtocolCode.SAGA:
        return _PROTOCOL
    is_known = _is_known(source_of(words, i), accounts)
    return _FINE if is_known and _is_known(destination_of(words, i), accounts) else _ACCOUNT


@inlined
def _fault_of_opening(words: Words, i: Number) -> Number:
    if amount_of(words, i) < UNLIMITED:
        return _LIMIT
    if protocol_of(words, i) != 0 or not is_by_name(source_of(words, i)):
        return _UNUSED
    if not is_by_name(destination_of(words, i)):
        return _UNUSED
    return _FINE if is_currency(currency_of(words, i)) else _CURRENCY


@inlined
def _fault_of_status(words: Words, i: Number, accounts: Number) -> Number:
    if amount_of(words, i) < StatusCode.OPEN or amount_of(words, i) > StatusCode.CLOSED:
        return _STATUS
    if currency_of(words, i) != 0:
        return _NONE
    first, second = id_of(words, i)
    if first != 0 or second != 0 or protocol_of(words, i) != 0:
        return _UNUSED
    if not is_by_name(destination_of(words, i)):
        return _UNUSED
    return _FINE if _is_known(source_of(words, i), accounts) else _ACCOUNT


@inlined
def _fault_of_terms(words: Words, i: Number) -> Number:
    """Of a BEGIN and a CALL."""
    if amount_of(words, i) < 1:
        return _AMOUNT
    if not is_phased(protocol_of(words, i)):
        return _PHASED
    return _FINE if is_currency(currency_of(words, i)) else _CURRENCY


@inlined
def _fault_of_begin(words: Words, i: Number, accounts: Number) -> Number:
    if not is_by_name(destination_of(words, i)):
        return _OTHER
    if not _is_known(source_of(words, i), accounts):
        return _ACCOUNT
    return _fault_of_terms(words, i)


@inlined
def _fault_of_call(words: Words, i: Number, accounts: Number) -> Number:
    if not is_by_name(source_of(words, i)):
        return _OTHER
    if not _is_known(destination_of(words, i), accounts):
        return _ACCOUNT
    fault = _fault_of_terms(words, i)
    if fault != _FINE:
        return fault
    return _FINE if is_call(protocol_of(words, i), step_of(words, i)) else _CALL


@inlined
def _fault_of_advance(words: Words, i: Number) -> Number:
    if amount_of(words, i) != 0 or currency_of(words, i) != 0:
        return _UNUSED
    if not is_by_name(source_of(words, i)) or not is_by_name(destination_of(words, i)):
        return _UNUSED
    protocol, step = protocol_of(words, i), step_of(words, i)
    if not is_phased(protocol):
        return _PHASED
    return _FINE if is_step(protocol, step & _BYTE, step >> _EVENT_AT) else _STEP


@inlined
def _is_known(number: Number, accounts: Number) -> Truth:
    return number < accounts or is_by_name(number)


@compiled(types.UniTuple(types.int64, 8)(WORDS, types.int64, types.int64[:, ::1]))
def _look_through(
    words: Words, accounts: Number, named: np.ndarray[tuple[int, int], np.dtype[np.int64]]
) -> tuple[int, int, int, int, int, int, int, int]:
    """The first fault and where it is; counts of openings, transfers, attempts, steps, named; bytes
    of texts.
    """
    openings, transfers, attempts, steps, count, start = 0, 0, 0, 0, 0, 0
    for i in range(len(words)):
        fault = _fault(words, i, accounts)
        if fault != _FINE:
            return fault, i, openings, transfers, attempts, steps, count, start
        kind = kind_of(words, i)
        if kind == Kind.OPEN:
            openings += 1
        if kind == Kind.TRANSFER:
            transfers += 1
        if kind >= Kind.BEGIN:
            steps += 1
            transfers += kind == Kind.BEGIN
            attempts += kind != Kind.ADVANCE
        if _needs_names(words, i):
            named[count, 0] = i
            named[count, 1] = start
            count += 1
        start += text_of(words, i)
    return _FINE, 0, openings, transfers, attempts, steps, count, start
