"""Following a transfer until its outcome is known, and never saying more than is known."""

import json
from collections.abc import Callable

import httpx
import pytest

from tandem.cli.client import Client, Waiting
from tandem.cli.terminal import UnknownOutcome, readable
from tandem.cli.transfer import Order, settle

BODY = {"source": "a", "destination": "b", "amount": 5, "currency": "EUR"}
ID = "0ab-00000000000000000000000000000000"
Reply = Callable[[httpx.Request], httpx.Response]


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, pause_s: float) -> None:
        self.now_s += pause_s


class Service:
    """Answers with the next reply, the last one for ever; notes method, host and path."""

    def __init__(self, *replies: Reply, urls: tuple[str, ...] = ("http://c1",)) -> None:
        self.seen: list[str] = []
        self.keys: set[str] = set()
        self._replies = list(replies)
        self.client = Client(urls, transport=httpx.MockTransport(self._answer))
        self.time = Time()

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(f"{request.method} {request.url.host}{request.url.path}")
        if request.method == "POST":
            self.keys.add(request.headers["Idempotency-Key"])
            assert json.loads(request.content) == BODY
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        return reply(request)

    def settle(self, is_key_given: bool = False) -> str:
        """The status, or the problem, that it ends with."""
        order = Order(dict(BODY), "k", is_key_given)
        time = self.time
        waiting = Waiting(30.0, clock=lambda: time.now_s, sleep=time.sleep)
        answer = settle(self.client, order, waiting)
        assert self.keys == {"k"}
        return answer.problem or str(answer.body["status"])


def says(code: int, **body: object) -> Reply:
    headers = {"Location": f"/v1/transfers/{ID}"} if code == 202 else {}
    return lambda request: httpx.Response(code, json={"id": ID, **body}, headers=headers)


def problem(status: int, name: str, **headers: str) -> Reply:
    body = {"type": f"/problems/{name}", "detail": f"it is {name}"}
    return lambda request: httpx.Response(status, json=body, headers=headers)


def fails(error: type[httpx.TransportError]) -> Reply:
    def reply(request: httpx.Request) -> httpx.Response:
        raise error("it failed", request=request)

    return reply


COMMITTED = says(201, status="committed")
PENDING = says(202, status="pending")
POST, GET = "POST c1/v1/transfers", f"GET c1/v1/transfers/{ID}"


@pytest.mark.parametrize(
    "first",
    [
        problem(429, "overloaded"),
        problem(503, "account-busy"),
        problem(409, "idempotency-key-in-use"),
        problem(500, "internal-error"),
        fails(httpx.ConnectError),
        fails(httpx.ReadError),
        fails(httpx.ReadTimeout),
        fails(httpx.RemoteProtocolError),
    ],
)
def test_a_passing_trouble_is_got_over_with_the_same_key(first: Reply) -> None:
    service = Service(first, COMMITTED)
    assert service.settle() == "committed"
    assert service.seen == [POST, POST]


def test_retry_after_is_obeyed() -> None:
    service = Service(problem(503, "overloaded", **{"Retry-After": "3"}), COMMITTED)
    service.settle()
    assert service.time.now_s >= 3


def test_another_coordinator_is_asked_at_once() -> None:
    service = Service(fails(httpx.ConnectError), COMMITTED, urls=("http://c1", "http://c2"))
    assert service.settle() == "committed"
    assert service.seen == [POST, "POST c2/v1/transfers"]
    assert service.time.now_s == 0


def test_a_pending_one_is_followed_until_it_is_settled() -> None:
    service = Service(PENDING, says(200, status="pending"), says(200, status="committed"))
    assert service.settle() == "committed"
    assert service.seen == [POST, GET, GET]


def test_a_pending_one_that_never_happened_is_sent_again() -> None:
    service = Service(PENDING, problem(404, "transfer-not-found"), COMMITTED)
    assert service.settle() == "committed"
    assert service.seen == [POST, GET, POST]


def test_a_refusal_is_final() -> None:
    service = Service(problem(422, "insufficient-funds"))
    assert service.settle() == "insufficient-funds"
    assert service.seen == [POST]


@pytest.mark.parametrize(
    ("reply", "is_key_given", "is_known"),
    [
        (fails(httpx.ConnectError), False, True),
        (problem(503, "shard-unavailable"), False, True),
        (problem(429, "overloaded"), False, True),
        (fails(httpx.ConnectError), True, False),
        (fails(httpx.ReadTimeout), False, False),
        (problem(500, "internal-error"), False, False),
        (lambda request: httpx.Response(503, text="proxy"), False, False),
        (PENDING, False, False),
    ],
)
def test_what_is_said_when_time_is_up(reply: Reply, is_key_given: bool, is_known: bool) -> None:
    service = Service(reply)
    with pytest.raises(UnknownOutcome) as told:
        service.settle(is_key_given)
    assert ("Nothing has happened" in told.value.message) is is_known
    assert ("not known" in told.value.message) is not is_known
    assert "--key" in told.value.message
    assert service.time.now_s <= 30


def test_one_lost_answer_keeps_the_outcome_unknown_whatever_comes_after() -> None:
    service = Service(fails(httpx.ReadError), fails(httpx.ConnectError))
    with pytest.raises(UnknownOutcome, match="not known"):
        service.settle()


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (1250, "EUR", "12.50 EUR"),
        (-123456, "EUR", "-1,234.56 EUR"),
        (-5, "USD", "-0.05 USD"),
        (1500, "JPY", "1,500 JPY"),
        (1234, "KWD", "1.234 KWD"),
        (1234, "POINTS", "1,234 POINTS"),
        (2**63 - 1, "GBP", "92,233,720,368,547,758.07 GBP"),
    ],
)
def test_amounts_are_readable(amount: int, currency: str, text: str) -> None:
    assert readable(amount, currency) == text
