"""The body of COMMANDS.

offset  bytes
     0      4  number of commands
     4      4  bytes of their texts
     8         the commands (`eventstore.rows.COMMAND`), then their texts one after the other
"""

from struct import Struct
from typing import NamedTuple

import numpy as np

from eventstore.rows import COMMAND, COMMANDS_MAX, Commands
from eventstore.wire.errors import Malformed
from eventstore.wire.messages import Buffer
from ledger.errors import Bug

_HEAD = Struct("<II")


class Sent(NamedTuple):
    """Commands in their order, and their texts one after the other."""

    commands: Commands
    texts: bytes


def pack_commands(commands: Commands, texts: bytes) -> bytes:
    """Commands as bytes. Raises Bug if they are none."""
    if commands.dtype != COMMAND or commands.ndim != 1:
        raise Bug(f"commands are rows of {COMMAND}, not {commands.dtype} in {commands.ndim} axes")
    wrong = _misfit(commands, len(texts))
    if wrong:
        raise Bug(f"commands cannot be sent: {wrong[0]} is {wrong[1]}, and should be {wrong[2]}")
    return b"".join((_HEAD.pack(len(commands), len(texts)), commands.tobytes(), texts))


def read_commands(body: Buffer) -> Sent:
    """The commands of a body. Whether a machine takes them, the node knows. Raises Malformed."""
    if len(body) < _HEAD.size:
        raise Malformed("length of a body with commands", len(body), f"at least {_HEAD.size}")
    count, text_bytes = _HEAD.unpack_from(body)
    texts_at = _HEAD.size + count * COMMAND.itemsize
    if len(body) != texts_at + text_bytes:
        raise Malformed("length of a body with commands", len(body), texts_at + text_bytes)
    commands = np.frombuffer(body, COMMAND, count, _HEAD.size)
    wrong = _misfit(commands, text_bytes)
    if wrong:
        raise Malformed(*wrong)
    return Sent(commands, bytes(body[texts_at:]))


def _misfit(commands: Commands, text_bytes: int) -> tuple[str, object, object] | None:
    """What does not fit: a name, how it is, and how it should be."""
    if len(commands) > COMMANDS_MAX:
        return "number of commands", len(commands), f"at most {COMMANDS_MAX}"
    told = int(commands["text"].sum(dtype=np.int64))
    if told != text_bytes:
        return "sum of the lengths of the commands' texts", told, text_bytes
    return None
