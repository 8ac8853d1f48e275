"""Whether the texts of commands have the parts that their kinds have: see `rows.pack_texts`."""

from itertools import accumulate

import numpy as np
from numba import types
from numpy.typing import NDArray

from eventstore.machine.bytewise import is_ascii
from eventstore.machine.compiled import WORDS, Number, Truth, compiled, inlined
from eventstore.machine.texts import Body, check_parts
from eventstore.machine.words import (
    Words,
    destination_of,
    is_by_name,
    kind_of,
    source_of,
    text_of,
)
from eventstore.rows import Commands, Kind

_LENGTH = 2
_SOURCE, _DESTINATION, _TRANSFER_PARTS = 2, 3, 4
Texts = NDArray[np.uint8]


def check_texts(commands: Commands, words: Words, texts: bytes) -> None:
    """Raises Bug with the first command whose texts are not what its kind has. The commands have as
    many bytes of texts as there are: see `contents`.
    """
    odd = np.empty(len(words), np.int64)
    count = _look_through(words, np.frombuffer(texts, np.uint8), odd)
    if not count:
        return
    ends = list(accumulate(commands["text"].tolist()))
    for index in odd[:count].tolist():
        row, end = commands[index], ends[index]
        check_parts(Body(row, texts[end - int(row["text"]) : end]))


@inlined
def _is_plain(words: Words, i: Number, texts: Texts, start: Number, end: Number) -> Truth:
    """Whether all is right with a transfer whose texts are ASCII."""
    if kind_of(words, i) != Kind.TRANSFER:
        return False
    parts, at = 0, start
    while at + _LENGTH <= end:
        length = np.int64(texts[at]) | np.int64(texts[at + 1]) << 8
        at += _LENGTH
        if at + length > end:
            return False
        # The last two parts are names, where there are no numbers.
        if parts == _SOURCE and is_by_name(source_of(words, i)) != (length > 0):
            return False
        if parts == _DESTINATION and is_by_name(destination_of(words, i)) != (length > 0):
            return False
        if not is_ascii(texts, at, length):
            return False
        at += length
        parts += 1
    return at == end and parts == _TRANSFER_PARTS


@compiled(types.int64(WORDS, types.Array(types.uint8, 1, "C", readonly=True), types.int64[::1]))
def _look_through(words: Words, texts: Texts, odd: NDArray[np.int64]) -> int:
    """Note the commands that are not plain, for Python to look at; gives how many there are."""
    count, end = 0, 0
    for i in range(len(words)):
        start, end = end, end + text_of(words, i)
        if not _is_plain(words, i, texts, start, end):
            odd[count] = i
            count += 1
    return count
