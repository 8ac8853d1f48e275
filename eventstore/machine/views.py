"""A frame and the machine's state as compiled functions are given them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.machine import index
from eventstore.machine.compiled import WORDS, Number, inlined, types
from eventstore.machine.currencies import TABLE, Table
from eventstore.machine.index import TABLES, Tables
from eventstore.machine.rules import Rows
from eventstore.machine.words import Words, is_by_name


class Frame(NamedTuple):
    """A frame's commands. `names` is of shape (commands, 4), two words for the id of the source (or
    of the account) and two for that of the destination, where these are given by name; or of shape
    (0, 4) if none are. The attempt that a command names has two words in place of an account that
    is another shard's: of the source, but of a BEGIN of the destination. `place` is that of the
    first command.
    """

    words: Words
    names: NDArray[np.uint64]
    now: int
    place: int


class State(NamedTuple):
    """What the commands change: the accounts, what they are in, their index, the transfers', the
    attempts, and their index.
    """

    rows: Rows
    currencies: Table
    accounts: Tables
    transfers: Tables
    attempt_rows: Rows
    attempts: Tables


_ROWS = types.int64[:, ::1]
FRAME = types.NamedTuple((WORDS, types.uint64[:, ::1], types.int64, types.int64), Frame)
STATE = types.NamedTuple((_ROWS, TABLE, TABLES, TABLES, _ROWS, TABLES), State)


@inlined
def named(frame: Frame, i: Number, side: Number, number: Number, accounts: Tables) -> Number:
    """The account that is given by a number or, for NOBODY, by name; -1 if there is none."""
    if not is_by_name(number):
        return number
    first, second = frame.names[i, side], frame.names[i, side + 1]
    return index.find(accounts, first, second, index.hash_of(accounts, first, second))[0]
