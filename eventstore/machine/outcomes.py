"""What is told of an outcome besides its code: compiled."""

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.compiled import Number, Truth, inlined
from eventstore.machine.rules import BALANCE, EXPECTED, HELD, LIMIT, META, currency_in
from eventstore.machine.views import State
from eventstore.rows import Code

# Rows as of `rows.DETAIL`, in words.
Numbers = NDArray[np.int64]
COMMAND = 0
_A, _B, _C, _D = range(1, 5)


@inlined
def write(
    details: Numbers, filled: Number, a: Number, b: Number = 0, c: Number = 0, d: Number = 0
) -> None:
    details[filled, _A] = a
    details[filled, _B] = b
    details[filled, _C] = c
    details[filled, _D] = d


@inlined
def has_details(code: Number) -> Truth:
    return code >= Code.SOURCE_CURRENCY and code != Code.NO_ACCOUNT


@inlined
def explain(
    code: Number,
    state: State,
    source: Number,
    destination: Number,
    details: Numbers,
    filled: Number,
) -> None:
    """What the text of a refusal of a transfer is made of, for those that have numbers in it."""
    rows = state.rows
    if code == Code.SOURCE_CURRENCY:
        write(details, filled, currency_in(rows[source, META], state.currencies))
    elif code == Code.DESTINATION_CURRENCY:
        write(details, filled, currency_in(rows[destination, META], state.currencies))
    elif code == Code.FUNDS:
        limit = rows[source, LIMIT]
        write(details, filled, rows[source, BALANCE], rows[source, HELD], limit)
    elif code == Code.SOURCE_OVERFLOW or code == Code.HELD_OVERFLOW:
        write(details, filled, rows[source, BALANCE], rows[source, HELD])
    elif code == Code.DESTINATION_OVERFLOW or code == Code.EXPECTED_OVERFLOW:
        write(details, filled, rows[destination, BALANCE], rows[destination, EXPECTED])
    elif code == Code.REFUND_OVERFLOW:
        write(details, filled, rows[source, BALANCE], rows[source, EXPECTED])
