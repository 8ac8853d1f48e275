"""Memory that is asked for in advance and taken only where it is written to."""

import mmap
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

# Puts the next bytes of a dump into memory, all of them, or raises what keeps it from that.
Fill = Callable[[memoryview], None]

# Linux, and not in Python's mmap: no room in the swap is set aside for it.
_MAP_NORESERVE = 0x4000


def reserve_words(count: int) -> NDArray[np.uint64]:
    """So many words of 64 bits, all zero; in huge pages where the system has them."""
    room = _reserve(count * 8)
    with suppress(OSError):
        room.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(room, np.uint64, count)


def reserve_bytes(count: int) -> NDArray[np.uint8]:
    """So many bytes, all zero."""
    return np.frombuffer(_reserve(count), np.uint8, count)


def _reserve(size: int) -> mmap.mmap:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    return mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=flags)
