"""Numbers that no account has, as a client may send them.

In a frame a number that was not given is a mistake of our own. So before commands are taken such an
account is named instead, by an id that none can have: each transfer with one is then refused by
itself, as for any other account that is not there.
"""

import numpy as np
from numpy.typing import NDArray

from eventstore.rows import COMMAND, NOBODY, Commands, Kind, each_text, pack_texts, unpack_texts

# In front of a number; no account's id has it.
MARK = "#"
_SIDES = ("source", "destination")
# The texts of a transfer: key, metadata, and the ids of these.
_PARTS = 4


def named(commands: Commands, texts: bytes, accounts: int) -> tuple[Commands, bytes]:
    """The commands with `#NUMBER` as the id wherever a transfer has a number beyond those of so
    many accounts. What is wrong with them otherwise is left as it is.
    """
    if commands.dtype != COMMAND or int(commands["text"].sum()) != len(texts):
        return commands, texts
    is_transfer = commands["kind"] == Kind.TRANSFER
    unknown = [is_transfer & _is_unknown(commands[side], accounts) for side in _SIDES]
    odd = np.flatnonzero(unknown[0] | unknown[1])
    if not len(odd):
        return commands, texts
    commands, pieces = commands.copy(), list(each_text(commands, texts))
    for index in odd.tolist():
        sides = [side for side, is_odd in zip(_SIDES, unknown, strict=True) if is_odd[index]]
        pieces[index] = _named(commands[index], pieces[index], sides)
    return commands, b"".join(pieces)


def _is_unknown(numbers: NDArray[np.uint32], accounts: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (numbers >= accounts) & (numbers != NOBODY)
    return found


def _named(row: np.void, packed: bytes, sides: list[str]) -> bytes:
    """Name these sides of one transfer in its row, which is changed, and in its texts."""
    try:
        parts = unpack_texts(packed)
    except ValueError:
        return packed
    if len(parts) != _PARTS:
        return packed
    for side in sides:
        parts[_SIDES.index(side) + 2] = f"{MARK}{row[side]}"
        row[side] = NOBODY
    told = pack_texts(parts)
    row["text"] = len(told)
    return told
