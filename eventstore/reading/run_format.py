"""A run as bytes: entries that are sorted by accounts, in a file that is never changed; pure.

All numbers are little-endian. A header of HEADER_BYTES bytes; the entries (`shapes.ENTRY`), then
zero bytes up to the end of a page; the spans of their accounts (`shapes.SPAN`), and zero bytes
again; then for each page of both the CRC-32 of its bytes (4 bytes), and of every SPANS_IN_GROUP-th
span, from the first one on, the account (4 bytes). The header ends with the SHA-256 of all else in
it and of what stands behind the pages. So a changed byte is noticed wherever it is, when it is
read.
"""

from collections.abc import Sequence
from hashlib import sha256
from struct import Struct
from typing import NamedTuple
from uuid import UUID

from eventstore.reading.errors import Where
from eventstore.reading.shapes import ENTRY, SPAN
from eventstore.segments.frame import Identity

MAGIC = b"TNDRUN\xff\xff"
FORMAT = 1
PAGE_BYTES = 2**14
SPANS_IN_GROUP = 512

_HEADER = Struct("<8sQ16s16sQ4q2Q32s")
HEADER_BYTES = _HEADER.size


class Header(NamedTuple):
    """What a run says of itself: the frames whose entries it has, behind `after` and up to `until`;
    and how many entries, of how many accounts. `level` is how often they were merged.
    """

    identity: Identity
    after: int
    until: int
    level: int
    entries: int
    accounts: int

    @property
    def entry_pages(self) -> int:
        return _pages(self.entries * ENTRY.itemsize)

    @property
    def pages(self) -> int:
        """Those of the entries, and those of the spans behind them."""
        return self.entry_pages + _pages(self.accounts * SPAN.itemsize)

    @property
    def groups(self) -> int:
        """Groups of spans."""
        return -(-self.accounts // SPANS_IN_GROUP)

    @property
    def file_bytes(self) -> int:
        return HEADER_BYTES + self.pages * PAGE_BYTES + 4 * (self.pages + self.groups)


def _pages(size: int) -> int:
    return -(-size // PAGE_BYTES)


def encode(header: Header, tables: Sequence[bytes]) -> bytes:
    """The bytes of a header; `tables` are those that stand behind the pages."""
    cluster, group, branch = header.identity
    numbers = header[1:]
    fields = (MAGIC, FORMAT, cluster.bytes, group.bytes, branch, *numbers)
    head = _HEADER.pack(*fields, 0, bytes(32))[:-32]
    return head + _hash(head, tables)


def decode(data: bytes, file: str) -> Header:
    """Raises KeptDamaged for what is no header; `check_tables` finds what is changed in it."""
    where = Where(file, 0)
    where.demand("number of bytes that are there of the header", len(data), HEADER_BYTES)
    magic, version, cluster, group, branch, *numbers, _, _ = _HEADER.unpack(data)
    where.demand("magic", magic.hex(), MAGIC.hex())
    where.demand("format", version, FORMAT)
    return Header(Identity(UUID(bytes=cluster), UUID(bytes=group), branch), *numbers)


def check_tables(data: bytes, tables: Sequence[bytes], file: str) -> None:
    """Raises KeptDamaged if the header's bytes or the tables are not those that were written."""
    Where(file, 0).demand("hash", data[-32:].hex(), _hash(data[:-32], tables).hex())


def _hash(head: bytes, tables: Sequence[bytes]) -> bytes:
    digest = sha256(head)
    for table in tables:
        digest.update(table)
    return digest.digest()
