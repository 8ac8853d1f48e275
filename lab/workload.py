"""Clients that move money between shards, in a process of their own; each answer is remembered.

A client that gets no clear answer sends the same request again, with the same key, until it gets
one: as real clients do.
"""

import multiprocessing
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from lab.result import Deal
from lab.wire import Line
from tandem.chaos.history import Attempt, Order, Told, Via, read_post
from tandem.chaos.tasks import Task
from tandem.chaos.workload import AVOIDS, CURRENCY
from tandem.local.errors import LocalError
from tandem.local.processes import INTERRUPTS

AMOUNT_MAX = 50
RETRY_PAUSE_MIN_S, RETRY_PAUSE_MAX_S = 0.02, 0.25
# A client whose answer is still open when the load has ended goes on trying for so long.
PATIENCE_S = 60.0
_STOP_GRACE_S = 10.0


@dataclass(frozen=True)
class Plan:
    """What the clients are to do. The same plan makes the same choices."""

    # The keys begin with it.
    run: str
    urls: Sequence[str]
    # account -> its shard; see parts.Place
    shards: Mapping[str, str]
    clients: int
    seed: int
    # Of the request's body; "" for one that has none.
    protocol: str


@dataclass(frozen=True)
class Tally:
    """What the clients have asked for, and every answer by its label."""

    deals: list[Deal]
    answers: dict[str, int]


class Client:
    """One client; it has one transfer under way at a time."""

    def __init__(self, plan: Plan, index: int, began: float, stop: threading.Event) -> None:
        self._plan = plan
        self._chance = random.Random(f"client {plan.seed} {index}")
        self._name = f"{plan.run}-{index}"
        self._began = began
        self._stop = stop
        self._lines = {url: Line(url) for url in plan.urls}
        self._silent = ""
        shards = sorted(set(plan.shards.values()))
        self._held = {s: sorted(a for a, on in plan.shards.items() if on == s) for s in shards}
        self.deals: list[Deal] = []
        self.answers: Counter[str] = Counter()

    def run(self) -> None:
        while not self._stop.is_set():
            self.deals.append(self._deal(self._order()))
        for line in self._lines.values():
            line.close()

    def _order(self) -> Order:
        """A transfer from one shard to another."""
        ends = [
            self._chance.choice(self._held[s]) for s in self._chance.sample(list(self._held), 2)
        ]
        amount = self._chance.randint(1, AMOUNT_MAX)
        return Order(f"{self._name}-{len(self.deals)}", ends[0], ends[1], amount, CURRENCY)

    def _deal(self, order: Order) -> Deal:
        """Send it until there is a clear answer, or patience ends."""
        began = time.monotonic()
        give_up: float | None = None
        tries = unclear = 0
        while True:
            told = self._send(order)
            tries += 1
            unclear += told in (Told.UNKNOWN, Told.PENDING)
            now = time.monotonic()
            if self._stop.is_set() and give_up is None:
                give_up = now + PATIENCE_S
            if told.is_final or (give_up is not None and now > give_up):
                return Deal(
                    order.id,
                    order.source,
                    order.destination,
                    order.amount,
                    began - self._began,
                    now - self._began,
                    told.value if told.is_final else "unanswered",
                    tries,
                    unclear,
                )
            time.sleep(self._chance.uniform(RETRY_PAUSE_MIN_S, RETRY_PAUSE_MAX_S))

    def _send(self, order: Order) -> Told:
        url = self._url()
        body = order.body | ({"protocol": self._plan.protocol} if self._plan.protocol else {})
        reply = self._lines[url].post("/v1/transfers", body, {"Idempotency-Key": order.key})
        told, reason, _ = read_post(reply)
        now = time.monotonic()
        attempt = Attempt(order, Via.POST, url, now, now, told, reason, None, reply.label)
        if attempt.is_silence:
            self._silent = url
        elif url == self._silent:
            self._silent = ""
        self.answers[reply.label] += 1
        return told

    def _url(self) -> str:
        avoided = self._silent if self._chance.random() < AVOIDS else ""
        return self._chance.choice([u for u in self._plan.urls if u != avoided])


class Load:
    """The process of the clients, told from here when to begin and when to end."""

    def __init__(self, ours: "Connection[Any, Any]") -> None:
        self._pipe = ours

    def start(self) -> float:
        """Let the clients begin; gives the moment, on the clock that all processes share."""
        began = time.monotonic()
        self._pipe.send(began)
        return began

    def end(self) -> None:
        """No new transfers; those that have no clear answer yet are tried on."""
        # Whether they are still there shows when they are asked for their answers.
        with suppress(OSError):
            self._pipe.send(None)

    def tally(self) -> Tally:
        """After `end`: wait until each client has its answer. Raises LocalError."""
        try:
            told = self._pipe.recv()
        except (EOFError, OSError):
            told = "their process has ended"
        if not isinstance(told, Tally):
            raise LocalError(f"the clients broke off: {told}")
        return told


@contextmanager
def clients(plan: Plan) -> Iterator[Load]:
    """A process with the clients, for the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(plan, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Load(ours)
        process.join(_STOP_GRACE_S)
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        ours.close()


def _serve(plan: Plan, pipe: "Connection[Any, Any]") -> None:
    # Ctrl-C reaches every process of a terminal; who has started this one decides what ends.
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    try:
        pipe.send(_run(plan, pipe))
    except EOFError:
        pass
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _run(plan: Plan, pipe: "Connection[Any, Any]") -> Tally:
    stop = threading.Event()
    began = pipe.recv()
    team = [Client(plan, index, began, stop) for index in range(plan.clients)]
    tasks = [Task(client.run).start() for client in team]
    pipe.recv()
    stop.set()
    for task in tasks:
        task.join()
    answers: Counter[str] = Counter()
    for client in team:
        answers += client.answers
    return Tally([deal for client in team for deal in client.deals], dict(answers))
