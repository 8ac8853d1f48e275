"""Numbers that no account has, as a client may send them.

In a frame a number that was not given is a mistake of our own. So before commands are taken such an
account is named instead, by an id that none can have: each transfer with one is then refused by
itself, as for any other account that is not there.
"""

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.refusals import UNKNOWN_MARK
from eventstore.rows import COMMAND, NOBODY, Commands, Kind, each_text, pack_texts, unpack_texts

_SIDES = ("source", "destination")


def named(commands: Commands, texts: bytes, accounts: int) -> tuple[Commands, bytes]:
    """The commands with `#NUMBER` as the id wherever a transfer has a number beyond those of so
    many accounts. What is wrong with them otherwise is left as it is.
    """
    if commands.dtype != COMMAND or int(commands["text"].sum()) != len(texts):
        return commands, texts
    is_transfer = commands["kind"] == Kind.TRANSFER
    unknown = [is_transfer & _is_unknown(commands[side], accounts) for side in _SIDES]
    odd = np.flatnonzero(unknown[0] | unknown[1]).tolist()
    if not odd:
        return commands, texts
    pieces, names = list(each_text(commands, texts)), [_names(commands, side) for side in _SIDES]
    named_by = list(zip(names, [is_odd.tolist() for is_odd in unknown], strict=True))
    for index in odd:
        given = [side[index] if is_odd[index] else "" for side, is_odd in named_by]
        try:
            pieces[index] = _named(pieces[index], *given)
        except ValueError:
            return commands, texts
    commands = commands.copy()
    for side, is_odd in zip(_SIDES, unknown, strict=True):
        commands[side][is_odd] = NOBODY
    commands["text"][odd] = [len(pieces[index]) for index in odd]
    return commands, b"".join(pieces)


def _is_unknown(numbers: NDArray[np.uint32], accounts: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (numbers >= accounts) & (numbers != NOBODY)
    return found


def _names(commands: Commands, side: str) -> list[str]:
    return [f"{UNKNOWN_MARK}{number}" for number in commands[side].tolist()]


def _named(packed: bytes, source: str, destination: str) -> bytes:
    """The texts of a transfer with these names where they are not empty. Raises ValueError."""
    key, metadata, *sides = unpack_texts(packed)
    was_source, was_destination = sides
    return pack_texts([key, metadata, source or was_source, destination or was_destination])
