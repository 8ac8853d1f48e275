"""Commands by their places in the list: of frames that are not written yet, and of old ones."""

from collections import OrderedDict
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from eventstore.machine.texts import Body as Command
from eventstore.rows import place_parts
from eventstore.segments.frame import Body
from eventstore.segments.reader import Reader

# Who sends a batch again asks for the commands of few frames, again and again.
_KEPT = 16

Ends = NDArray[np.int64]


class Recent:
    """For the thread that decides. `reader` reads what is durable."""

    def __init__(self, reader: Reader) -> None:
        self._frames: OrderedDict[int, Body] = OrderedDict()
        self._old = lru_cache(_KEPT)(lambda seq: _with_ends(reader.find(seq).body))

    def add(self, seq: int, body: Body, answerable: int) -> None:
        """A frame that may be in no file yet; those up to `answerable` are."""
        self._frames[seq] = body
        while (first := next(iter(self._frames))) <= answerable:
            del self._frames[first]

    def command(self, place: int) -> Command:
        """The command that stands at a place (see `rows.place`)."""
        seq, index = place_parts(place)
        body, ends = _with_ends(self._frames[seq]) if seq in self._frames else self._old(seq)
        end = int(ends[index])
        row = body.commands[index]
        return Command(row, body.texts[end - int(row["text"]) : end])


def _with_ends(body: Body) -> tuple[Body, Ends]:
    """A frame's body, and where the texts of each of its commands end."""
    return body, np.cumsum(body.commands["text"], dtype=np.int64)
