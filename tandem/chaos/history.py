"""What clients asked for and what they were told: values, and the record that holds them."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from itertools import pairwise
from typing import Any, NamedTuple

from ledger.ids import transfer_id


class Order(NamedTuple):
    """A transfer that a client wants; its key stays the same however often it is sent."""

    key: str
    source: str
    destination: str
    amount: int
    currency: str
    # "" names none: it is left to the service.
    protocol: str = ""

    @property
    def id(self) -> str:
        return transfer_id(self.source, self.key)

    @property
    def body(self) -> dict[str, Any]:
        """As POST /v1/transfers takes it."""
        named = {"protocol": self.protocol} if self.protocol else {}
        return {
            "source": self.source,
            "destination": self.destination,
            "amount": self.amount,
            "currency": self.currency,
            **named,
        }

    @property
    def item(self) -> dict[str, Any]:
        """As an item of a batch."""
        return {**self.body, "idempotency_key": self.key}


class Told(Enum):
    """What an answer says about a transfer."""

    COMMITTED = "committed"
    REJECTED = "rejected"
    # 429, 503, 409, or never sent: this request has done nothing, and will not.
    NOTHING = "nothing has happened by this request"
    # 202, or status "pending".
    PENDING = "not settled yet"
    # GET: 404.
    ABSENT = "not there"
    # The answer was lost, or says that it does not know.
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        return self in (Told.COMMITTED, Told.REJECTED)


class Via(Enum):
    """How it was asked."""

    POST = "POST /v1/transfers"
    BATCH = "POST /v1/transfers/batch"
    GET = "GET /v1/transfers/{id}"


class Reply(NamedTuple):
    """What came of one HTTP request. `status` is 0 when no answer came; `label` says why."""

    status: int
    body: Any
    label: str
    # Without an answer: whether the request may have been carried out.
    was_sent: bool = True

    @property
    def is_silence(self) -> bool:
        """Whether no answer came at all."""
        return self.status == 0


# How the labels of requests without an answer begin.
NOT_CONNECTED, LOST, TOO_LATE = "refused connection", "lost connection", "no answer"


class Attempt(NamedTuple):
    """One transfer in one request and its answer. Times are seconds since the run began."""

    order: Order
    via: Via
    url: str
    began: float
    ended: float
    told: Told
    # Why it was rejected; the name of the problem otherwise.
    reason: str = ""
    # The answer's own words about the transfer, to be compared with another answer's.
    body: Mapping[str, Any] | None = None
    label: str = ""
    # No answer came at all.
    is_silence: bool = False

    def __str__(self) -> str:
        asked = self.via.value.replace("{id}", self.order.id)
        told = f"{self.told.value} {self.reason}".strip()
        return (
            f"{self.began:.3f}-{self.ended:.3f} s {asked} key {self.order.key} at {self.url}: "
            f"{self.label or 'item'} ({told})"
        )


def problem_of(body: Any) -> str:
    """The stable name of a problem document; "" if it is none."""
    kind = body.get("type", "") if isinstance(body, dict) else ""
    return str(kind).rpartition("/problems/")[2]


def read_post(reply: Reply) -> tuple[Told, str, Mapping[str, Any] | None]:
    """What the answer to POST /v1/transfers says: told, reason, the transfer's own words."""
    body = reply.body if isinstance(reply.body, dict) else {}
    problem = problem_of(body)
    if reply.status == 201 and body.get("status") == "committed":
        return Told.COMMITTED, "", body
    if reply.status == 422 and problem:
        return Told.REJECTED, problem, body
    if reply.status == 202:
        return Told.PENDING, "", None
    return _without_outcome(reply), problem, None


def read_get(reply: Reply) -> tuple[Told, str, Mapping[str, Any] | None]:
    """The same of GET /v1/transfers/{id}."""
    body = reply.body if isinstance(reply.body, dict) else {}
    if reply.status == 200 and body.get("status") in ("committed", "rejected", "pending"):
        told = Told(body["status"]) if body["status"] != "pending" else Told.PENDING
        return told, str(body.get("reason", "")), body if told.is_final else None
    if reply.status == 404:
        return Told.ABSENT, "", None
    # A request that only reads leaves open what it was to find out.
    return Told.UNKNOWN, problem_of(body), None


def read_item(result: Mapping[str, Any]) -> tuple[Told, str]:
    """What a batch says of one item."""
    reason = str(result.get("reason") or "")
    if result.get("status") == "failed":
        return Told.NOTHING, reason
    if result.get("status") == "pending":
        return Told.PENDING, ""
    return Told(result["status"]), reason


def _without_outcome(reply: Reply) -> Told:
    """A write that was not answered with an outcome: has it done nothing, or who knows?"""
    if not reply.was_sent:
        return Told.NOTHING
    detail = str(reply.body.get("detail", "")) if isinstance(reply.body, dict) else ""
    if "not known" in detail or not problem_of(reply.body):
        return Told.UNKNOWN
    is_definite = 400 <= reply.status < 500 or reply.status == 503
    return Told.NOTHING if is_definite or "nothing has happened" in detail else Told.UNKNOWN


def label_of(status: int, body: Any) -> str:
    """An answer as the table names it: 201, 202, 422 insufficient-funds, 503 account-busy."""
    detail = str(body.get("detail", "")) if isinstance(body, dict) else ""
    unsure = " (not known)" if status >= 500 and "not known" in detail else ""
    return f"{status} {problem_of(body)}{unsure}".strip()


class History:
    """Every attempt, by key, in the order in which the answers came. Threads may share it."""

    def __init__(self, on_attempt: Callable[[Sequence[Attempt], Attempt], None]) -> None:
        """`on_attempt` is told of each attempt, with the earlier ones of its key."""
        self._on_attempt = on_attempt
        self._lock = threading.Lock()
        self._attempts: dict[str, list[Attempt]] = {}
        self.answers: Counter[str] = Counter()
        # When each key was first told to be committed, and how many keys there are of each outcome.
        self.committed_at: list[float] = []
        self.outcomes: Counter[Told] = Counter()

    def add(self, attempt: Attempt) -> None:
        with self._lock:
            known = self._attempts.setdefault(attempt.order.key, [])
            earlier = tuple(known)
            known.append(attempt)
            if attempt.told.is_final and not any(e.told.is_final for e in earlier):
                self.outcomes[attempt.told] += 1
                if attempt.told is Told.COMMITTED:
                    self.committed_at.append(attempt.ended)
        self._on_attempt(earlier, attempt)

    def count(self, label: str) -> None:
        """Count an answer that a client saw; a batch has one, and one for each item."""
        with self._lock:
            self.answers[label] += 1

    def attempts(self) -> dict[Order, tuple[Attempt, ...]]:
        """Everything so far."""
        with self._lock:
            return {some[0].order: tuple(some) for some in self._attempts.values()}

    def __len__(self) -> int:
        with self._lock:
            return len(self._attempts)


def longest_gap_s(committed_at: Sequence[float], began: float, ended: float) -> float:
    """The longest time without a committed transfer between two moments."""
    inside = sorted(moment for moment in committed_at if began <= moment <= ended)
    moments = [began, *inside, ended]
    return max(after - before for before, after in pairwise(moments))


def some_of(orders: Sequence[Order], at_most: int, chance: random.Random) -> list[Order]:
    """All of them, or so many by chance."""
    return list(orders) if len(orders) <= at_most else chance.sample(list(orders), at_most)
