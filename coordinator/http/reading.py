"""Reading requests: bodies, headers and parameters, each with an error that shows the value."""

import re
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar
from urllib.parse import unquote_plus

import msgspec
from flask import Response, current_app, g, request
from werkzeug.exceptions import ClientDisconnected

from coordinator.http import json_text
from coordinator.http.json_text import shown as shown
from coordinator.http.problems import Refuse
from coordinator.http.schemas import BATCH_MAX, FRAME_PATTERN, KEY_PATTERN
from coordinator.http.turns import Turns
from ledger.ids import ACCOUNT_ID_PATTERN
from shard_client.records import Since

T = TypeVar("T")

JSON = "application/json"
# What finds the values of a batch in its body, one by one: it raises TooLong, ValueError or
# RecursionError, as late as behind the last, and calls the function now and then.
Reader = Callable[[bytes, Callable[[], None]], Iterator[json_text.Value]]

_ACCOUNT_ID = re.compile(ACCOUNT_ID_PATTERN)
_KEY = re.compile(KEY_PATTERN)
_FRAME = re.compile(FRAME_PATTERN)
_WAIT = re.compile(r"(?:^|[,;\s])wait=([0-9]{1,9})")
_PATH = re.compile(r"at `\$((?:\.\w+)+)`$")
_SHOWN_MAX = 80
_SAID_MAX = 300
_PREFER_MAX = 1000
# A body is read piece by piece, and after the first of them with breaks: others that wait are
# to be looked at in between.
_PIECE_BYTES = 64 * 1024
_FREE_PIECES = 8
_BREAK_S = 0.002
# 1,000 accounts, and some more to say that there are too many; each escaped, with its name.
_PARAMETERS_MAX = 1100
_PARAMETER_MAX = 300
_PARAMETERS_AT_ONCE = 200
_WAIT_MAX_S = 30.0


class Malformed(NamedTuple):
    """An item of a batch that is refused by itself."""

    why: str


def body(kind: type[T]) -> T:
    """The request's body as `kind`. Raises Refuse."""
    media(JSON)
    data = _data(current_app.config["REQUEST_MAX_BYTES"])
    try:
        return _convert(json_text.read(data), kind)
    except (ValueError, RecursionError) as error:
        raise Refuse(400, "malformed", f"{_cut(error)}; nothing has happened") from None


def batch(name: str, kind: type[T]) -> Iterator[T | Malformed]:
    """The items of a batch in JSON, the list that is the only member of its body, one by one.
    Raises Refuse, perhaps after the last one.
    """
    media(JSON)
    data = batch_body()
    return items(data, lambda data, pause: json_text.read_list(data, name, pause), name, kind)


def batch_body() -> bytes:
    """The body of a batch. Raises Refuse."""
    return _data(batch_bytes_max())


def items(data: bytes, read: Reader, name: str, kind: type[T]) -> Iterator[T | Malformed]:
    """The items of a batch, however it is written, one by one: so that others have their turn in
    between. Raises Refuse, perhaps after the last one.
    """
    turns, count = Turns(), 0
    try:
        for found in read(data, turns.pause):
            count += 1
            if count > BATCH_MAX:
                detail = f"there are {count} {name} or more, {BATCH_MAX} at most are taken"
                raise Refuse(413, "too-large", f"{detail}; nothing has happened")
            try:
                item: T | Malformed = _convert(found, kind)
            except ValueError as error:
                item = Malformed(_cut(error))
            yield item
    except json_text.TooLong as error:
        raise Refuse(413, "too-large", f"{error}; nothing has happened") from None
    except (ValueError, RecursionError) as error:
        where = f"after {count} {name}: " if count else ""
        raise Refuse(400, "malformed", f"{where}{_cut(error)}; nothing has happened") from None
    finally:
        turns.end()


def at_once(data: bytes, read: Callable[[bytes], T]) -> T:
    """What is read of a batch in one stretch. Raises Refuse."""
    try:
        return read(data)
    except json_text.TooLong as error:
        raise Refuse(413, "too-large", f"{error}; nothing has happened") from None
    except ValueError as error:
        raise Refuse(400, "malformed", f"{_cut(error)}; nothing has happened") from None


def batch_bytes_max() -> int:
    """How large a batch may be."""
    most: int = current_app.config["MAX_CONTENT_LENGTH"]
    return most


def pause() -> None:
    """Let others of this process have their turn."""
    time.sleep(0)


def no_body() -> None:
    """Refuse a request that has a body where none is read. Raises Refuse."""
    if request.content_length or "HTTP_TRANSFER_ENCODING" in request.environ:
        detail = f"{request.method} {request.path[:_SHOWN_MAX]} takes no body; nothing has happened"
        raise Refuse(400, "malformed", detail)


def media(*taken: str) -> str:
    """The content type of a body, which is one of these; text is UTF-8, and as it is. Raises
    Refuse.
    """
    found = request.mimetype or "none"
    if found not in taken:
        detail = f"the content type is {found}, not {' or '.join(taken)}; nothing has happened"
        raise Refuse(415, "content-type", detail)
    charset = request.mimetype_params.get("charset", "utf-8")
    if charset.lower() not in ("utf-8", "us-ascii"):
        detail = f"the charset is {shown(charset)}, and only UTF-8 is taken; nothing has happened"
        raise Refuse(415, "content-type", detail)
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        detail = f"the content encoding is {shown(coding)}, and none is taken; nothing has happened"
        raise Refuse(415, "content-type", detail)
    return found


def _data(most: int) -> bytes:
    """The whole body. Raises Refuse, ClientDisconnected."""
    length = request.content_length
    if length is not None and length > most:
        detail = f"the body has {length} bytes, more than {most}; nothing has happened"
        raise Refuse(413, "too-large", detail)
    stream = request.environ["wsgi.input"]
    pieces: list[bytes] = []
    # Of a body that comes in chunks one byte more tells that it is too long.
    left = most + 1 if length is None else length
    while left > 0 and (piece := stream.read(min(left, _PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
        if len(pieces) > _FREE_PIECES:
            time.sleep(_BREAK_S)
    if length is None and left <= 0:
        detail = f"the body has more than {most} bytes; nothing has happened"
        raise Refuse(413, "too-large", detail)
    if length is not None and left > 0:
        raise ClientDisconnected
    return b"".join(pieces)


def _convert(found: json_text.Value, kind: type[T]) -> T:
    """A value as `kind`. Raises ValueError, which says what is wrong, with the value at fault."""
    value, fault = found
    if fault:
        raise ValueError(fault)
    try:
        return msgspec.convert(value, kind)
    except ValueError as error:
        text = str(error)
        path = _PATH.search(text)
        if path is None:
            raise
    for name in path.group(1).split(".")[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    raise ValueError(f"{text}: it is {shown(value)}")


def _cut(error: Exception) -> str:
    """What an error says, but not a long name that the request has brought."""
    text = str(error)
    return text if len(text) <= _SAID_MAX else text[:_SAID_MAX] + "..."


def check_account(account: str) -> str:
    """An account's id from the address. Raises Refuse."""
    if not _ACCOUNT_ID.fullmatch(account):
        detail = (
            f"{shown(account)} is no account id: 1 to 64 of A-Z a-z 0-9 _ . : - {{ }}; "
            "nothing has happened"
        )
        raise Refuse(400, "malformed", detail)
    return account


def idempotency_key() -> str:
    """The key of the request's header. Raises Refuse."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        detail = "the header Idempotency-Key is missing; nothing has happened"
        raise Refuse(400, "malformed", detail)
    if not _KEY.fullmatch(key):
        detail = (
            f"the Idempotency-Key {shown(key)} is not 1 to 128 printable ASCII characters, without "
            "blanks at its ends; nothing has happened"
        )
        raise Refuse(400, "malformed", detail)
    return key


def wait_preference() -> float:
    """The seconds of `Prefer: wait=N`, 0 without it. Raises Refuse if there are several."""
    text = request.headers.get("Prefer", "")
    if len(text) > _PREFER_MAX:
        detail = f"the header Prefer has {len(text)} characters, more than {_PREFER_MAX}"
        raise Refuse(400, "malformed", f"{detail}; nothing has happened")
    found = _WAIT.findall(text)
    if len(found) > 1:
        detail = f"the header Prefer says wait {len(found)} times; nothing has happened"
        raise Refuse(400, "malformed", detail)
    return min(float(found[0]), _WAIT_MAX_S) if found else 0.0


def query() -> dict[str, list[str]]:
    """The parameters of the request, each with its values in their order. Raises Refuse."""
    found: dict[str, list[str]] | None = g.get("query")
    if found is None:
        found = g.query = _query(request.environ.get("QUERY_STRING", ""))
    return found


def _query(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    count = text.count("&") + 1
    if count > _PARAMETERS_MAX:
        detail = f"{count} parameters are given, more than {_PARAMETERS_MAX}"
        raise Refuse(400, "malformed", f"{detail}; nothing has happened")
    for index, pair in enumerate(text.split("&") if text else ()):
        if index % _PARAMETERS_AT_ONCE == _PARAMETERS_AT_ONCE - 1:
            pause()
        if len(pair) > _PARAMETER_MAX:
            detail = f"the parameter {shown(pair)} has more than {_PARAMETER_MAX} characters"
            raise Refuse(400, "malformed", f"{detail}; nothing has happened")
        name, _, value = pair.partition("=")
        try:
            name, value = (unquote_plus(part, errors="strict") for part in (name, value))
        except UnicodeDecodeError:
            detail = f"the parameter {shown(pair)} is not UTF-8; nothing has happened"
            raise Refuse(400, "malformed", detail) from None
        found.setdefault(name, []).append(value)
    return found


def parameter(name: str) -> str | None:
    """A parameter that is given once at most, None if it is not. Raises Refuse."""
    return query().get(name, [None])[0]


def integer(name: str, default: int | None, least: int, most: int) -> int | None:
    """A whole number from the query. Raises Refuse."""
    text = parameter(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        detail = f"{name} is {shown(text)}, not a whole number from {least} to {most}"
        raise Refuse(400, "malformed", detail)
    return int(text)


def since() -> Since | None:
    """The frame that an answer is to have seen, by the parameter `min_seq`. Raises Refuse."""
    text = parameter("min_seq")
    if text is None:
        return None
    if not _FRAME.fullmatch(text):
        detail = f"min_seq is {shown(text)}, not a `seq`, nor the `id` of an event"
        raise Refuse(400, "malformed", detail)
    seq, index, check = [*text.split("-"), "", ""][:3]
    return Since(int(seq), int(index) if index else None, check)


def json(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(value), status, content_type=JSON)
