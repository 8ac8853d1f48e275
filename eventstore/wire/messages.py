"""What goes over a connection: one message after the other, both ways.

All numbers are little-endian. A message is

    offset  bytes
         0      4  how many bytes follow
         4      8  number: the request's, which its answers carry too
        12      1  kind
        13         body

The client numbers its requests; answers come in any order. Number 0 is the connection's own.
"""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from eventstore.wire.errors import Malformed, TooLarge
from ledger.errors import Bug

# Of a message, with all that stands before its body (rule E16).
MESSAGE_BYTES_MAX = 16 * 2**20
# Until a connection has proved itself: nobody unknown makes this process reserve memory.
PROOF_BYTES_MAX = 1024

_HEAD = Struct("<IQB")
HEAD_BYTES = _HEAD.size
_SIZE_BYTES = 4
NUMBER_MAX = 2**64 - 1

Buffer = bytes | bytearray | memoryview


class Kind(IntEnum):
    """What a message is. Behind each: who sends it, and what its body is."""

    CHALLENGE = 1  # server: proofs.Challenge
    PROOF = 2  # client: proofs.Proof
    HELLO = 3  # server: proofs.Welcome
    COMMANDS = 4  # client: see commands.py
    FIRSTS = 5  # server, before the answer and only where it is needed: see answers.py
    ANSWER = 6  # server: see answers.py
    QUESTION = 7  # client: one of questions.py
    REPLY = 8  # server: what belongs to the question
    FAILED = 9  # server, in the place of any answer: failures.Failed
    PUSH = 10  # server, once and again after a question that asks for it: its struct


class Message(NamedTuple):
    """A message that came."""

    number: int
    kind: Kind
    body: Buffer


class Head(NamedTuple):
    """What stands before a body of so many bytes."""

    number: int
    kind: Kind
    body_bytes: int


def pack(number: int, kind: Kind, body: Buffer = b"") -> bytes:
    """A message as bytes. Raises TooLarge."""
    size = HEAD_BYTES + len(body)
    if size > MESSAGE_BYTES_MAX:
        raise TooLarge(size, MESSAGE_BYTES_MAX)
    if not 0 <= number <= NUMBER_MAX:
        raise Bug(f"a message cannot have the number {number}: it is one of 0 to {NUMBER_MAX}")
    return _HEAD.pack(size - _SIZE_BYTES, number, kind) + body


def read_head(data: Buffer, limit: int = MESSAGE_BYTES_MAX) -> Head:
    """What the first HEAD_BYTES of a message say. Raises Malformed; TooLarge if the message has
    more than `limit` bytes.
    """
    if len(data) != HEAD_BYTES:
        raise Malformed("length of a message's head", len(data), HEAD_BYTES)
    rest, number, kind = _HEAD.unpack(data)
    size = rest + _SIZE_BYTES
    if size < HEAD_BYTES:
        raise Malformed("size of a message", size, f"at least {HEAD_BYTES}")
    if size > limit:
        raise TooLarge(size, limit)
    if kind not in _KINDS:
        raise Malformed("kind of a message", kind, f"one of {[k.value for k in Kind]}")
    return Head(number, Kind(kind), size - HEAD_BYTES)


_KINDS = frozenset(Kind)
