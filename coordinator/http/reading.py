"""Reading requests: bodies, headers and parameters, each with an error that shows the value."""

import re
from typing import Any, TypeVar

import msgspec
from flask import Response, request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from coordinator.http.problems import Refuse
from coordinator.http.schemas import KEY_PATTERN
from ledger.ids import ACCOUNT_ID_PATTERN

T = TypeVar("T")

_ACCOUNT_ID = re.compile(ACCOUNT_ID_PATTERN)
_KEY = re.compile(KEY_PATTERN)
_SHOWN_MAX = 80
_WAIT_MAX_S = 30.0


def body(kind: type[T]) -> T:
    """The request's body as `kind`. Raises Refuse."""
    if request.mimetype != "application/json":
        found = request.mimetype or "none"
        detail = f"the content type is {found}, not application/json; nothing has happened"
        raise Refuse(415, "content-type", detail)
    data = _data()
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise Refuse(400, "malformed", f"{explain(data, error)}; nothing has happened") from None


def _data() -> bytes:
    """The whole body. Raises RequestEntityTooLarge, ClientDisconnected."""
    length, most = request.content_length, request.max_content_length
    if length is not None and (most is None or length <= most):
        # The plain case, for which Werkzeug goes through three more objects.
        data: bytes = request.environ["wsgi.input"].read(length)
        if len(data) < length:
            raise ClientDisconnected
        return data
    # Of a body that comes in chunks Werkzeug reads as much as it may and says nothing of the rest.
    data = request.get_data(cache=False)
    if len(data) == request.max_content_length and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    return data


def explain(data: bytes | msgspec.Raw, error: Exception) -> str:
    """What is wrong with JSON text, with the value at fault where it can be named."""
    text = str(error)
    path = re.search(r"at `\$((?:\.\w+)+)`$", text)
    if path:
        try:
            value: Any = msgspec.json.decode(data)
        except (ValueError, RecursionError):
            # The text is broken behind the place that was at fault first.
            return text
        for name in path.group(1).split(".")[1:]:
            value = value.get(name) if isinstance(value, dict) else None
        text += f": it is {shown(value)}"
    return text


def shown(value: object) -> str:
    """A value as it is put into an error, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


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
            f"the Idempotency-Key {shown(key)} is not 1 to 128 printable ASCII characters; "
            "nothing has happened"
        )
        raise Refuse(400, "malformed", detail)
    return key


def wait_preference() -> float:
    """The seconds of `Prefer: wait=N`, 0 without it."""
    match = re.search(r"(?:^|[,;\s])wait=([0-9]{1,9})", request.headers.get("Prefer", ""))
    return min(float(match.group(1)), _WAIT_MAX_S) if match else 0.0


def integer(name: str, default: int | None, least: int, most: int) -> int | None:
    """A whole number from the query. Raises Refuse."""
    text = request.args.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        detail = f"{name} is {shown(text)}, not a whole number from {least} to {most}"
        raise Refuse(400, "malformed", detail)
    return int(text)


def json(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(value), status, content_type="application/json")
