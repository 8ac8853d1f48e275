"""Where a list ends: rule E5, as a function of what was read; pure.

Frames are written one behind the other, and several may be under way when the power goes. So at the
end of the last segment there may be a frame that is not whole, and behind it frames that are. Such
a frame was answered only if it was flushed; and what was made after that says so, by `flushed`.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from eventstore.segments.chain import Link, follow
from eventstore.segments.errors import Damaged, Where
from eventstore.segments.frame import ALIGNMENT, IDENTITY_AT, Frame, Identity, decode


class End(NamedTuple):
    """So many bytes of the last segment are the list, which ends with `last`. `broken` is what does
    not hold of the bytes behind them, None if there are none.
    """

    size: int
    last: Link
    broken: Damaged | None


def decide_end(data: bytes, file: str, before: Link, identity: Identity) -> End:
    """Where the list ends in its last segment; `data` is all of that, `before` the link that its
    first frame follows on.

    What is not whole is the end, if no whole frame behind it vouches that it was flushed. Raises
    Damaged if one does, and for a frame that is whole and does not follow on the one before: no
    crash makes such a frame. Raises NewerFormat.
    """
    view = memoryview(data)
    at, last = 0, before
    while at < len(data):
        where = Where(file, at)
        try:
            frame = decode(view[at:], where)
        except Damaged as broken:
            _refuse_if_flushed(data, broken, last.seq + 1, identity)
            return End(at, last, broken)
        last = follow(last, frame.header, identity, where)
        at += frame.length
    return End(at, last, None)


def _refuse_if_flushed(data: bytes, broken: Damaged, seq: int, identity: Identity) -> None:
    """Raise Damaged if a frame behind the broken one vouches for that, which would be `seq`."""
    for where, frame in _frames_behind(data, broken, identity):
        header = frame.header
        if header.flushed >= seq:
            because = (
                f"it was frame {seq}, and it was flushed: frame {header.seq}, at byte"
                f" {where.offset}, says so of all up to {header.flushed}"
            )
            there = Where(broken.file, broken.offset)
            raise Damaged(*there, broken.what, broken.found, broken.expected, because) from None


def _frames_behind(
    data: bytes, broken: Damaged, identity: Identity
) -> Iterator[tuple[Where, Frame]]:
    """Whole frames of this list behind one that is broken, wherever they begin: its length may be
    what is broken. A frame begins so that its list's identity stands at IDENTITY_AT.
    """
    needle, view = identity.pack(), memoryview(data)
    at = broken.offset + 1
    while (found := data.find(needle, at + IDENTITY_AT)) >= 0:
        at = found - IDENTITY_AT
        where = Where(broken.file, at)
        at += 1
        if where.offset % ALIGNMENT == 0:
            # What is not whole here was being written too, or is no frame.
            with suppress(Damaged):
                yield where, decode(view[where.offset :], where)
