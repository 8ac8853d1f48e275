"""What a snapshot says of itself, as bytes. All numbers are little-endian:

    offset  bytes
         0      6  magic
         6      2  version of the format
         8     16  uuid of the cluster
        24     16  uuid of the group
        40      8  branch of the group
        48      8  seq of the frame after which the state is
        56      8  that frame's epoch
        64      8  its time, in microseconds since 1970
        72     32  its hash
       104      4  version of the machine
       108      4  bytes of a block
       112      8  number of accounts
       120      8  bytes of their ids
       128      8  number of currencies
       136      8  number of transfers
       144      8  number of attempts
       152     32  the machine's digest of the state
       184     32  hash of this header: SHA-256 of all bytes before it

The state follows, in blocks: see `blocks.py`. Format 1, which is read as well, has no attempts:
what stands behind them begins at offset 144.
"""

from hashlib import sha256
from struct import Struct
from typing import NamedTuple
from uuid import UUID

from eventstore.machine.machine import Sizes
from eventstore.segments.chain import Link
from eventstore.segments.frame import Identity
from eventstore.snapshots.errors import NotOfThisList, SnapshotDamaged

MAGIC = b"TNS\xff\xff\xff"
FORMAT = 2

_HEADER = Struct("<6sH16s16sQ2Qq32s2I5Q32s32s")
HEADER_BYTES = _HEADER.size
_HEADERS = {1: Struct("<6sH16s16sQ2Qq32s2I4Q32s32s"), FORMAT: _HEADER}
_FORMAT_AT = slice(6, 8)
_HASH_BYTES = 32


class Header(NamedTuple):
    """See the table above. `sizes` has the seq too."""

    identity: Identity
    link: Link
    machine: int
    block_bytes: int
    sizes: Sizes
    digest: bytes


def encode(header: Header) -> bytes:
    """The bytes of a header, its hash included."""
    (cluster, group, branch), (seq, epoch, time_us, hash_) = header.identity, header.link
    identity = cluster.bytes, group.bytes, branch
    packed = _HEADER.pack(
        *(MAGIC, FORMAT, *identity, seq, epoch, time_us, hash_),
        *(header.machine, header.block_bytes, *header.sizes[1:], header.digest, b""),
    )[:-_HASH_BYTES]
    return packed + sha256(packed).digest()


def header_of(data: bytes) -> bytes:
    """The header's own bytes of HEADER_BYTES: in an older format it is shorter."""
    return data[: _HEADERS.get(_format_of(data), _HEADER).size]


def decode(data: bytes, file: str) -> Header:
    """The header that `data` is: see `header_of`.

    Raises SnapshotDamaged naming the first thing that does not hold: the number of bytes, magic,
    hash. Raises NotOfThisList for a format that is not known here.
    """
    version = _format_of(data)
    shape = _HEADERS.get(version, _HEADER)
    _demand(file, "number of bytes that are there of the header", len(data), shape.size)
    magic, _, cluster, group, branch, *rest = shape.unpack(data)
    _demand(file, "magic", magic.hex(), MAGIC.hex())
    # Of another format not even the length of the header is known.
    if version not in _HEADERS:
        raise NotOfThisList(file, "format", version, FORMAT)
    _demand(file, "hash", rest[-1].hex(), sha256(data[:-_HASH_BYTES]).hexdigest())
    seq, epoch, time_us, hash_, machine, block_bytes, *sizes, digest, _ = rest
    identity = Identity(UUID(bytes=cluster), UUID(bytes=group), branch)
    link = Link(seq, epoch, time_us, hash_)
    return Header(identity, link, machine, block_bytes, Sizes(seq, *sizes), digest)


def hash_of(encoded: bytes) -> bytes:
    """The hash that stands in a header's bytes: the first block is hashed with it."""
    return encoded[-_HASH_BYTES:]


def _format_of(data: bytes) -> int:
    return int.from_bytes(data[_FORMAT_AT], "little")


def _demand(file: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise SnapshotDamaged(file, 0, what, found, expected)
