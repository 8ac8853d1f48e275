"""Structs as MessagePack, and strictly back."""

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec

from eventstore.wire.errors import Malformed
from eventstore.wire.messages import Buffer

T = TypeVar("T")

encode = msgspec.msgpack.Encoder().encode
# Of a body that is refused, so many bytes are told.
_SHOWN_BYTES = 40


def decode(body: Buffer, kind: type[T]) -> T:
    """The value that these bytes are; `kind` is its type, a union of structs
    too. Raises Malformed unless they are what
    `encode` makes of it: a field more, one twice, or another spelling is none.
    """
    try:
        value: T = _decoder(cast(Hashable, kind)).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Malformed(_named(kind), _shown(body), f"one ({error})") from error
    if encode(value) != body:
        raise Malformed(_named(kind), _shown(body), f"spelled as {_shown(encode(value))}")
    return value


@lru_cache(None)
def _decoder(kind: Hashable) -> "msgspec.msgpack.Decoder[Any]":
    return msgspec.msgpack.Decoder(kind)


def _named(kind: object) -> str:
    return f"body of {getattr(kind, '__name__', None) or kind}"


def _shown(body: Buffer) -> str:
    shown = bytes(body[:_SHOWN_BYTES]).hex()
    return shown if len(body) <= _SHOWN_BYTES else f"{shown}... ({len(body)} bytes)"
