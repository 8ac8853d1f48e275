"""Clients that move money at random and remember every request with its answer."""

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import msgspec

from ledger.ids import SLOT_COUNT, slot_of
from tandem.chaos.history import (
    LOST,
    NOT_CONNECTED,
    TOO_LATE,
    Attempt,
    History,
    Order,
    Reply,
    Told,
    Via,
    label_of,
    read_get,
    read_item,
    read_post,
)
from tandem.chaos.tasks import Task

CURRENCY = "EUR"
# So little that refusals for want of funds are common.
FUNDS = 12
AMOUNT_MAX = 5

CONNECT_TIMEOUT_S = 2.0
# Shorter than a frozen coordinator may stay frozen: its clients turn to another one.
ANSWER_TIMEOUT_S = 10.0
# Each client rests for up to so long between two transfers, so that it is the faults that the
# service is measured with, not the processor.
REST_MAX_S = 0.06
# So often is the destination an account that there is not.
NOBODY = 0.03
# So likely does a client avoid the coordinator that gave it no answer last.
AVOIDS = 0.8
# A client that was told nothing final tries again after up to so long, at most so often.
RETRY_PAUSE_MAX_S = 0.4
RETRIES_MAX = 6
BATCH_MAX = 8
# Of so many of its latest transfers a client asks again.
REMEMBERED = 50


def account_names(run: str, count: int) -> list[str]:
    """Names in equal parts of the slots, so that they spread over the shards evenly."""
    names = []
    for index in range(count):
        first, beyond = index * SLOT_COUNT // count, (index + 1) * SLOT_COUNT // count
        salt = 0
        while not first <= slot_of(name := f"{run}-{index}-{salt:x}") < beyond:
            salt += 1
        names.append(name)
    return names


class Wire:
    """Sends requests and never raises for what becomes of them. Threads may share it."""

    def __init__(self, connections: int, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        timeout = httpx.Timeout(answer_timeout_s, connect=CONNECT_TIMEOUT_S, pool=None)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=connections)
        # Addresses are given as they are to be used: no proxy stands between.
        self._answer_timeout_s = answer_timeout_s
        self._http = httpx.Client(timeout=timeout, limits=limits, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def send(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] = {},
        params: Mapping[str, Any] | None = None,
    ) -> Reply:
        content = None if body is None else msgspec.json.encode(body)
        typed = {} if body is None else {"Content-Type": "application/json"}
        try:
            answer = self._http.request(
                method, url, content=content, headers={**typed, **headers}, params=params
            )
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return Reply(0, None, NOT_CONNECTED, was_sent=False)
        except httpx.TimeoutException:
            return Reply(0, None, f"{TOO_LATE} within {self._answer_timeout_s:.0f} s")
        except httpx.TransportError:
            return Reply(0, None, LOST)
        try:
            said = msgspec.json.decode(answer.content)
        except msgspec.DecodeError:
            said = None
        return Reply(answer.status_code, said, label_of(answer.status_code, said))


class Teller:
    """Asks for transfers, and puts each question with its answer into the history."""

    def __init__(self, wire: Wire, history: History, clock: Callable[[], float]) -> None:
        self._wire = wire
        self._history = history
        self._clock = clock

    def post(self, order: Order, url: str, wait_s: int = 0) -> Attempt:
        headers = {"Idempotency-Key": order.key}
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        began = self._clock()
        reply = self._wire.send("POST", f"{url}/v1/transfers", order.body, headers)
        return self._add(order, Via.POST, url, began, reply, *read_post(reply))

    def get(self, order: Order, url: str) -> Attempt:
        began = self._clock()
        reply = self._wire.send("GET", f"{url}/v1/transfers/{order.id}")
        return self._add(order, Via.GET, url, began, reply, *read_get(reply))

    def batch(self, orders: Sequence[Order], url: str) -> list[Attempt]:
        began = self._clock()
        body = {"transfers": [order.item for order in orders]}
        reply = self._wire.send("POST", f"{url}/v1/transfers/batch", body)
        ended = self._clock()
        self._history.count(f"batch: {reply.label}")
        results = reply.body.get("results", []) if reply.status == 200 else None
        if results is None or len(results) != len(orders):
            told = read_post(reply)[0]
            told = told if told in (Told.NOTHING, Told.UNKNOWN) else Told.UNKNOWN
            return [
                self._record(o, url, began, ended, told, reply.label, is_silence=reply.is_silence)
                for o in orders
            ]
        return [
            self._item(order, url, began, ended, result)
            for order, result in zip(orders, results, strict=True)
        ]

    def _item(
        self, order: Order, url: str, began: float, ended: float, result: Mapping[str, Any]
    ) -> Attempt:
        told, reason = read_item(result)
        label = f"item: {result['status']} {reason}".strip()
        self._history.count(label)
        return self._record(order, url, began, ended, told, label, reason)

    def _record(
        self,
        order: Order,
        url: str,
        began: float,
        ended: float,
        told: Told,
        label: str,
        reason: str = "",
        *,
        is_silence: bool = False,
    ) -> Attempt:
        attempt = Attempt(
            order, Via.BATCH, url, began, ended, told, reason, None, label, is_silence
        )
        self._history.add(attempt)
        return attempt

    def _add(
        self,
        order: Order,
        via: Via,
        url: str,
        began: float,
        reply: Reply,
        told: Told,
        reason: str,
        body: Mapping[str, Any] | None,
    ) -> Attempt:
        ended = self._clock()
        attempt = Attempt(
            order, via, url, began, ended, told, reason, body, reply.label, reply.is_silence
        )
        self._history.count(f"GET: {reply.label}" if via is Via.GET else reply.label)
        self._history.add(attempt)
        return attempt


class Client:
    """One client: does something at random, again and again, until it is stopped."""

    def __init__(
        self,
        name: str,
        teller: Teller,
        urls: Sequence[str],
        accounts: Sequence[str],
        chance: random.Random,
        stop: threading.Event,
        protocols: Sequence[str],
    ) -> None:
        self._protocols = protocols
        self._name = name
        self._teller = teller
        self._urls = urls
        self._accounts = accounts
        self._chance = chance
        self._stop = stop
        self._count = 0
        self._latest: list[Order] = []
        self._silent = ""

    def run(self) -> None:
        deeds = [self._single, self._batch, self._twice_at_once, self._once_more, self._ask]
        while not self._stop.wait(self._chance.uniform(0, REST_MAX_S)):
            self._chance.choices(deeds, weights=(70, 12, 6, 6, 6))[0]()

    def _order(self) -> Order:
        source, destination = self._chance.sample(self._accounts, 2)
        key = f"{self._name}-{self._count}"
        self._count += 1
        if self._chance.random() < NOBODY:
            # By Saga the money has left when that is found out.
            destination = f"nobody-{destination}"
        amount, protocol = self._chance.randint(1, AMOUNT_MAX), self._chance.choice(self._protocols)
        order = Order(key, source, destination, amount, CURRENCY, protocol)
        self._latest = [*self._latest[-REMEMBERED:], order]
        return order

    def _url(self) -> str:
        avoided = self._silent if self._chance.random() < AVOIDS else ""
        return self._chance.choice([u for u in self._urls if u != avoided] or self._urls)

    def _note(self, attempt: Attempt) -> Attempt:
        """Remember who gave no answer."""
        if attempt.is_silence:
            self._silent = attempt.url
        elif attempt.url == self._silent:
            self._silent = ""
        return attempt

    def _single(self) -> None:
        self._insist([self._order()])

    def _batch(self) -> None:
        orders = [self._order() for _ in range(self._chance.randint(2, BATCH_MAX))]
        if self._chance.random() < 0.1:
            orders.append(orders[0])
        attempts = self._teller.batch(orders, self._url())
        self._note(attempts[0])
        open_ = {a.order.key: a.order for a in attempts if not a.told.is_final}
        self._insist(list(open_.values()), is_first=False)

    def _twice_at_once(self) -> None:
        order = self._order()
        url = self._url()
        twin = Task(self._teller.post, order, url).start()
        self._teller.post(order, self._url())
        twin.join()

    def _once_more(self) -> None:
        if self._latest:
            self._teller.post(self._chance.choice(self._latest), self._url())

    def _ask(self) -> None:
        if self._latest:
            self._teller.get(self._chance.choice(self._latest), self._url())

    def _insist(self, orders: Sequence[Order], *, is_first: bool = True) -> None:
        """Send until all have an outcome, or for so often as this client's patience lasts."""
        open_ = list(orders)
        for attempt in range(self._chance.randint(0, RETRIES_MAX) + is_first):
            is_retry = attempt > 0 or not is_first
            if not open_ or (is_retry and self._stop.wait(self._pause())):
                return
            open_ = [order for order in open_ if not self._send(order, is_retry).told.is_final]

    def _pause(self) -> float:
        return self._chance.uniform(0.01, RETRY_PAUSE_MAX_S)

    def _send(self, order: Order, is_retry: bool) -> Attempt:
        if is_retry and self._chance.random() < 0.3:
            return self._note(self._teller.get(order, self._url()))
        return self._note(self._teller.post(order, self._url(), self._chance.choice((0, 0, 0, 2))))


class Load:
    """So many clients, at work between `start` and `stop`."""

    def __init__(
        self,
        count: int,
        run: str,
        teller: Teller,
        urls: Sequence[str],
        accounts: Sequence[str],
        chance: random.Random,
        protocols: Sequence[str],
    ) -> None:
        self._stop = threading.Event()
        self._clients = [
            Client(
                f"{run}-{index}",
                teller,
                urls,
                accounts,
                random.Random(chance.getrandbits(64)),
                self._stop,
                protocols,
            )
            for index in range(count)
        ]
        self._tasks: list[Task] = []

    def start(self) -> None:
        self._tasks = [Task(client.run).start() for client in self._clients]

    def end(self) -> None:
        """Let each client end with the request that it has sent."""
        self._stop.set()

    def join(self) -> None:
        """After `end`; raises what went wrong in a client, if something did."""
        for task in self._tasks:
            task.join()
