"""The bodies of ANSWER and of FIRSTS.

An answer has pieces in the order of the commands, each from one frame:

    offset  bytes
         0      4  number of pieces
         4      4  bytes of the text that says why the rest was not taken; 0: all was taken
         8         the pieces, then that text

and each of them

         0      4  index, in what was sent, of the first of its commands
         4      8  seq of its frame
        12      4  index of its first command in the frame
        16      8  time of the frame, in microseconds since 1970
        24      4  number of commands
        28      4  number of details
        32         an outcome each (one byte), then the details (`eventstore.rows.DETAIL`), which
                   count from the piece's first command

FIRSTS, MessagePack, has what was decided first, of commands whose id was known before: see `Known`.
A long answer has several of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple

import numpy as np

from eventstore.rows import COMMANDS_MAX, DETAIL, Code, Codes, Details, Outcomes
from eventstore.wire.errors import Malformed
from eventstore.wire.messages import Buffer
from eventstore.wire.questions import Known
from eventstore.wire.values import decode, encode
from ledger.errors import Bug

_HEAD = Struct("<II")
_PIECE = Struct("<IQIqII")
# Of each byte, whether it is an outcome.
_IS_CODE = np.isin(np.arange(256), list(Code))
# Of each FIRSTS, but for its last value.
_FIRSTS_BYTES = 2**20


class Piece(NamedTuple):
    """The outcomes of consecutive commands of what was sent: those from `first` on. They stand in
    frame `seq`, from index `at` on, decided at `time_us`. `details` count from the piece's first.
    """

    first: int
    seq: int
    at: int
    time_us: int
    outcomes: Outcomes


class Answer(NamedTuple):
    """What became of commands; `rest` says why those behind the last piece were not taken."""

    pieces: list[Piece]
    rest: str | None


def pack_answer(answer: Answer) -> bytes:
    """An answer as bytes."""
    if answer.rest == "":
        raise Bug("a rest that was not taken needs a reason")
    rest = (answer.rest or "").encode()
    parts = [_HEAD.pack(len(answer.pieces), len(rest))]
    for first, seq, at, time_us, (codes, details) in answer.pieces:
        parts.append(_PIECE.pack(first, seq, at, time_us, len(codes), len(details)))
        parts += codes.tobytes(), details.tobytes()
    return b"".join((*parts, rest))


def read_answer(body: Buffer) -> Answer:
    """The answer that a body is. Raises Malformed."""
    if len(body) < _HEAD.size:
        raise Malformed("length of an answer", len(body), f"at least {_HEAD.size}")
    count, rest_bytes = _HEAD.unpack_from(body)
    pieces, end = [], _HEAD.size
    for _ in range(count):
        piece, end = _read_piece(body, end)
        pieces.append(piece)
    if len(body) != end + rest_bytes:
        raise Malformed("length of an answer", len(body), end + rest_bytes)
    if wrong := _misfit(pieces):
        raise Malformed(*wrong)
    return Answer(pieces, _text(bytes(body[end:])))


def _read_piece(body: Buffer, start: int) -> tuple[Piece, int]:
    """The piece that begins at a byte, and where it ends. What is in it is not looked at."""
    codes_at = start + _PIECE.size
    if len(body) < codes_at:
        raise Malformed("length of an answer", len(body), f"at least {codes_at}")
    first, seq, at, time_us, codes, details = _PIECE.unpack_from(body, start)
    details_at = codes_at + codes
    end = details_at + details * DETAIL.itemsize
    if len(body) < end:
        raise Malformed("length of an answer", len(body), f"at least {end}")
    found_codes: Codes = np.frombuffer(body, np.uint8, codes, codes_at)
    found: Details = np.frombuffer(body, DETAIL, details, details_at)
    return Piece(first, seq, at, time_us, Outcomes(found_codes, found)), end


def _text(rest: bytes) -> str | None:
    try:
        return rest.decode() or None
    except UnicodeDecodeError as error:
        raise Malformed("why the rest was not taken", rest.hex(), f"UTF-8 ({error})") from error


def _misfit(pieces: Sequence[Piece]) -> tuple[str, object, object] | None:
    """What does not fit: a name, how it is, and how it should be."""
    end, seq = 0, 0
    for piece in pieces:
        codes, details = piece.outcomes
        if piece.first != end or not len(codes):
            return "place of a piece", (piece.first, len(codes)), f"({end}, at least 1)"
        if piece.seq <= seq or piece.time_us < 0:
            return "frame of a piece", (piece.seq, piece.time_us), f"(above {seq}, at least 0)"
        if piece.at + len(codes) > COMMANDS_MAX:
            found = piece.at + len(codes)
            return "end of a piece in its frame", found, f"at most {COMMANDS_MAX}"
        if not _IS_CODE[codes].all():
            unknown = sorted(set(codes.tolist()) - set(Code))
            return "outcomes", unknown, f"among {[code.value for code in Code]}"
        having = details["command"]
        if np.any(having[1:] <= having[:-1]) or np.any(having[-1:] >= len(codes)):
            return "order of the details' commands", having.tolist(), f"rising, below {len(codes)}"
        end, seq = piece.first + len(codes), piece.seq
    return None


def pack_firsts(firsts: Iterable[tuple[int, Known]]) -> Iterator[bytes]:
    """Bodies of FIRSTS; each value is a command's index, in what was sent, and its Known."""
    parts: list[tuple[int, Known]] = []
    size = 0
    for value in firsts:
        parts.append(value)
        size += len(encode(value))
        if size >= _FIRSTS_BYTES:
            yield encode(parts)
            parts, size = [], 0
    if parts:
        yield encode(parts)


def read_firsts(body: Buffer) -> list[tuple[int, Known]]:
    """What a body of FIRSTS has. Raises Malformed."""
    return decode(body, list[tuple[int, Known]])
