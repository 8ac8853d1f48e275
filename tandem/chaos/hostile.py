"""Requests that nobody honest sends, beside those of the clients: costly to refuse, with two
readings, broken on the way. Each is to be refused, and none may move money.
"""

import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from tandem.chaos.oracles import Violation, check_hostile
from tandem.chaos.tasks import Activity

PAUSE_MAX_S = 0.5
_ANSWER_TIMEOUT_S = 20.0
# Connections that say nothing, and how long they are held.
_IDLE_COUNT, _IDLE_S = 60, 2.0
_BIG = 6 << 20


class Hostile(NamedTuple):
    """A request by its bytes. `parts` are sent with a pause between them."""

    name: str
    parts: tuple[bytes, ...]


def requests(source: str, destination: str, key: str) -> list[Hostile]:
    """All of them; whoever takes one for good moves money from `source` to `destination`."""
    good = {"source": source, "destination": destination, "amount": 1, "currency": "EUR"}
    body = json.dumps(good)
    item = json.dumps({**good, "idempotency_key": f" {key} "})
    return [
        _post("a key given twice", body, f"Idempotency-Key: {key}\r\nIdempotency-Key: {key}"),
        _post("a member given twice", body.replace("{", '{"amount": 2, ', 1), _key(key)),
        _post("blanks at the ends of a key", f'{{"transfers": [{item}]}}', "", "/batch"),
        _post("an unknown parameter", body, _key(key), "?dry_run=true"),
        _post("an unknown member", body.replace("{", '{"dry_run": true, ', 1), _key(key)),
        _post("an amount with a point", body.replace("1,", "1.0,", 1), _key(key)),
        _post("an amount of 5,000 digits", body.replace("1,", "9" * 5000 + ",", 1), _key(key)),
        _post("6 MiB of nested metadata", _with_metadata(body, _nested()), _key(key)),
        _post("deep metadata", _with_metadata(body, "[" * 50_000 + "]" * 50_000), _key(key)),
        _post("no UTF-8", body, _key(key), spoil=lambda text: text.replace(b"EUR", b"E\xffR")),
        _chunked("a chunk without a size", key, b"ZZ\r\n" + body.encode() + b"\r\n0\r\n\r\n"),
        _chunked("a chunk of less than nothing", key, b"-5\r\n" + body.encode() + b"\r\n0\r\n\r\n"),
        _post("two lengths", body, f"{_key(key)}\r\nContent-Length: 5"),
        _post("an odd origin", body, f"{_key(key)}\r\nOrigin: http://["),
        Hostile("a head that is not ended", (b"POST /v1/transfers HTTP/1.1\r\nHost: x\r\n", b"a")),
        Hostile("no HTTP at all", (bytes(range(256)) * 8 + b"\r\n\r\n",)),
    ]


def _key(key: str) -> str:
    return f"Idempotency-Key: {key}"


def _with_metadata(body: str, metadata: str) -> str:
    return body.replace("{", '{"metadata": {"a": ' + metadata + "}, ", 1)


def _nested() -> str:
    return "[" + ",".join(["[]"] * (_BIG // 3)) + "]"


def _post(
    name: str,
    body: str,
    headers: str,
    more: str = "",
    spoil: Callable[[bytes], bytes] = lambda text: text,
) -> Hostile:
    content = spoil(body.encode())
    head = (
        f"POST /v1/transfers{more} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    )
    head += f"{headers}\r\n" if headers else ""
    return Hostile(name, (head.encode() + b"\r\n" + content,))


def _chunked(name: str, key: str, body: bytes) -> Hostile:
    head = (
        "POST /v1/transfers HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n{_key(key)}\r\n\r\n"
    )
    return Hostile(name, (head.encode() + body,))


def answer_to(request: Hostile, url: str, timeout_s: float = _ANSWER_TIMEOUT_S) -> bytes:
    """The answer, as far as one came before the server hung up or the time was over."""
    address = urlsplit(url)
    answer = b""
    with (
        suppress(OSError),
        socket.create_connection((address.hostname, address.port), timeout_s) as connection,
    ):
        for index, part in enumerate(request.parts):
            if index:
                time.sleep(PAUSE_MAX_S)
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            answer += data
    return answer


def status_of(answer: bytes) -> int:
    """0 if there was none."""
    words = answer[:64].split(b" ")
    is_http = len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1][:3].isdigit()
    return int(words[1][:3]) if is_http else 0


class Attacker(Activity):
    """Sends one after the other, at random, between `start` and `stop`."""

    def __init__(
        self,
        urls: Sequence[str],
        accounts: Sequence[str],
        chance: random.Random,
        accuse: Callable[[Violation], None],
    ) -> None:
        super().__init__()
        self._urls = urls
        self._accounts = accounts
        self._chance = chance
        self._accuse = accuse
        self.sent: Counter[str] = Counter()

    def _work(self) -> None:
        while not self._over.wait(self._chance.uniform(0, PAUSE_MAX_S)):
            url = self._chance.choice(self._urls)
            if self._chance.random() < 0.1:
                self._sit_idle(url)
                continue
            source, destination = self._chance.sample(self._accounts, 2)
            key = f"hostile-{self._chance.getrandbits(64):x}"
            request = self._chance.choice(requests(source, destination, key))
            answer = answer_to(request, url)
            self.sent[request.name] += 1
            for violation in check_hostile(request.name, status_of(answer), answer):
                self._accuse(violation)

    def _sit_idle(self, url: str) -> None:
        address = urlsplit(url)
        held: list[socket.socket] = []
        with suppress(OSError):
            for _ in range(_IDLE_COUNT):
                held.append(socket.create_connection((address.hostname, address.port), 1))
        self.sent["connections that say nothing"] += len(held)
        self._over.wait(_IDLE_S)
        for connection in held:
            connection.close()
