"""A frame as bytes: made, read and checked; pure.

All numbers are little-endian. The header has HEADER_BYTES bytes:

    offset  bytes
         0      6  magic
         6      2  version of the format
         8     16  uuid of the cluster
        24     16  uuid of the group
        40      8  branch of the group
        48      4  bytes of the frame, this header and the padding included
        52      4  number of commands
        56      4  number of details
        60      4  bytes of the texts
        64      8  epoch
        72      8  seq
        80      8  time, in microseconds since 1970
        88      8  the seq up to which the list was flushed when the frame was made
        96      8  number that the node drew when it started
       104      4  node
       108      4  version of the machine
       112     32  hash of the frame before
       144     32  hash of this frame: SHA-256 of all its other bytes, in their order

The commands follow (`eventstore.rows.COMMAND`), then an outcome each (one byte), the details
(DETAIL), the texts, and zero bytes up to the next multiple of 8. So a frame begins at a multiple of
8, and its first 8 bytes lie in one sector of a disk: a torn write leaves them whole or not at all,
and never makes another version of them.

What stands before offset 48 stands there in every version of the format.
"""

from hashlib import sha256
from struct import Struct
from struct import error as StructError
from typing import NamedTuple
from uuid import UUID

import numpy as np

from eventstore.rows import COMMAND, DETAIL, Commands, Outcomes
from eventstore.segments.errors import Damaged, NewerFormat, Where
from ledger.errors import Bug

# Three bytes that no UTF-8 text has, in a row: so nothing that a client can put into a frame's
# texts, with the two bytes of length that stand before each, looks like the beginning of a frame.
MAGIC = b"TND\xff\xff\xff"
FORMAT = 1
# Rule E16: what is sent, checked and kept in memory as one.
FRAME_BYTES_MAX = 2**20
ALIGNMENT = 8

_HEADER = Struct("<6sH16s16sQ4I2Qq2Q2I32s32s")
HEADER_BYTES = _HEADER.size
_HASH_AT = HEADER_BYTES - 32
# The bytes of the identity, in the header.
IDENTITY_AT = 8
_CODE = np.dtype(np.uint8)

Buffer = bytes | memoryview


class Identity(NamedTuple):
    """Whose list it is. The branch changes when an operator has declared a loss."""

    cluster: UUID
    group: UUID
    branch: int

    def pack(self) -> bytes:
        """The bytes that stand for it in a header, at IDENTITY_AT."""
        return self.cluster.bytes + self.group.bytes + self.branch.to_bytes(8, "little")


class Body(NamedTuple):
    """Commands, what became of each, and the commands' texts one after the other.

    Arrays that were read from a list cannot be written to.
    """

    commands: Commands
    outcomes: Outcomes
    texts: bytes


class Draft(NamedTuple):
    """What a frame is made of. Its time is later than that of the frame before, by 1 microsecond at
    least (rule E10). `node` has made it, and had drawn `draw` when it started; `machine` is the
    version of the machine that decided it.
    """

    seq: int
    time_us: int
    epoch: int
    node: int
    draw: int
    machine: int
    body: Body


class Header(NamedTuple):
    """What a frame says of itself, see the table above."""

    identity: Identity
    epoch: int
    seq: int
    time_us: int
    flushed: int
    draw: int
    node: int
    machine: int
    previous: bytes
    hash: bytes


class Frame(NamedTuple):
    """A frame that is whole by its own hash; `length` is in bytes."""

    header: Header
    body: Body
    length: int


class _Sizes(NamedTuple):
    """How long a frame says that it is."""

    length: int
    commands: int
    details: int
    texts: int


def frame_bytes(commands: int, details: int, texts: int) -> int:
    """The length of a frame with so many commands, details, and bytes of texts. Every command may
    come to have a detail: who gathers commands reckons with one for each.
    """
    body = commands * (COMMAND.itemsize + 1) + details * DETAIL.itemsize + texts
    return HEADER_BYTES + body + -body % ALIGNMENT


def encode(draft: Draft, identity: Identity, flushed: int, previous: bytes) -> tuple[bytes, bytes]:
    """The bytes of a frame, and its hash. `previous` is the hash of the frame before.

    Raises Bug if the draft is no frame: a body that does not fit itself, or is too large, or a
    number that does not fit its field.
    """
    sizes = len(draft.body.commands), len(draft.body.outcomes.details), len(draft.body.texts)
    length = frame_bytes(*sizes)
    wrong = _misfit(draft.body)
    if wrong:
        raise Bug(f"frame {draft.seq}: {wrong[0]} is {wrong[1]}, and should be {wrong[2]}")
    if length > FRAME_BYTES_MAX:
        raise Bug(f"frame {draft.seq} would have {length} bytes, more than {FRAME_BYTES_MAX}")
    head = _head(draft, identity, flushed, previous, _Sizes(length, *sizes))
    body = _parts(draft.body)
    padding = bytes(length - HEADER_BYTES - sum(len(part) for part in body))
    digest = _hash(head, *body, padding)
    return b"".join((head, digest, *body, padding)), digest


def decode(data: Buffer, where: Where) -> Frame:
    """The frame that begins with the first byte of `data`, which may go on behind it.

    Raises Damaged naming the first thing that does not hold, in this order: magic, format, length,
    hash, counts. Raises NewerFormat for a format that is not known here.
    """
    header, sizes = _read_header(data, where)
    where.demand("number of bytes that are there", min(len(data), sizes.length), sizes.length)
    data = memoryview(data)[: sizes.length]
    where.demand("hash", header.hash.hex(), _hash(data[:_HASH_AT], data[HEADER_BYTES:]).hex())
    body = _read_body(data, sizes)
    wrong = _misfit(body)
    if wrong:
        raise Damaged(where.file, where.offset, *wrong)
    return Frame(header, body, sizes.length)


def length_of(data: Buffer, where: Where) -> int:
    """How many bytes the frame has that begins with the first byte of `data`, by its header alone.

    Raises what `decode` does of a header, but finds no wrong hash.
    """
    return _read_header(data, where)[1].length


def _head(draft: Draft, identity: Identity, flushed: int, previous: bytes, sizes: _Sizes) -> bytes:
    """The header of a frame, without the frame's hash."""
    cluster, group, branch = identity
    numbers = draft.epoch, draft.seq, draft.time_us, flushed, draft.draw, draft.node, draft.machine
    try:
        return _HEADER.pack(
            MAGIC,
            FORMAT,
            cluster.bytes,
            group.bytes,
            branch,
            *sizes,
            *numbers,
            previous,
            bytes(32),
        )[:_HASH_AT]
    except StructError as error:
        raise Bug(f"frame {draft.seq} has no header: {error}, of {numbers}") from error


def _read_header(data: Buffer, where: Where) -> tuple[Header, _Sizes]:
    here = min(len(data), HEADER_BYTES)
    where.demand("number of bytes that are there of the header", here, HEADER_BYTES)
    magic, version, cluster, group, branch, *rest = _HEADER.unpack_from(data)
    where.demand("magic", magic.hex(), MAGIC.hex())
    if version > FORMAT:
        raise NewerFormat(*where, version, FORMAT)
    where.demand("format", version, FORMAT)
    sizes = _Sizes(*rest[:4])
    where.demand("length, by its counts,", sizes.length, frame_bytes(*sizes[1:]))
    if sizes.length > FRAME_BYTES_MAX:
        raise Damaged(*where, "length", sizes.length, f"at most {FRAME_BYTES_MAX}")
    return Header(Identity(UUID(bytes=cluster), UUID(bytes=group), branch), *rest[4:]), sizes


def _read_body(data: memoryview, sizes: _Sizes) -> Body:
    """The parts of a frame's body, which are not copied, except for the texts."""
    codes_at = HEADER_BYTES + sizes.commands * COMMAND.itemsize
    details_at = codes_at + sizes.commands
    texts_at = details_at + sizes.details * DETAIL.itemsize
    return Body(
        np.frombuffer(data, COMMAND, sizes.commands, HEADER_BYTES),
        Outcomes(
            np.frombuffer(data, _CODE, sizes.commands, codes_at),
            np.frombuffer(data, DETAIL, sizes.details, details_at),
        ),
        bytes(data[texts_at : texts_at + sizes.texts]),
    )


def _misfit(body: Body) -> tuple[str, object, object] | None:
    """What does not fit in a body: a name, how it is, and how it should be."""
    commands, (codes, details), texts = body
    types = (commands.dtype, codes.dtype, details.dtype)
    if types != (COMMAND, _CODE, DETAIL):
        return "type of commands, outcomes or details", types, "those of eventstore.rows"
    if len(codes) != len(commands):
        return "number of outcomes", len(codes), len(commands)
    text_bytes = int(commands["text"].sum(dtype=np.int64))
    if text_bytes != len(texts):
        return "sum of the lengths of the commands' texts", text_bytes, len(texts)
    having = details["command"]
    if np.any(having[1:] <= having[:-1]) or np.any(having[-1:] >= len(commands)):
        return "order of the details' commands", having.tolist(), f"rising, below {len(commands)}"
    return None


def _parts(body: Body) -> tuple[Buffer, ...]:
    """The bytes of a body, part by part and without a copy: a frame is copied once."""
    arrays = (body.commands, body.outcomes.codes, body.outcomes.details)
    return (*(np.ascontiguousarray(array).view(np.uint8).data for array in arrays), body.texts)


def _hash(*parts: Buffer) -> bytes:
    digest = sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()
