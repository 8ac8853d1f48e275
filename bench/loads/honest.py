"""Clients that behave: one transfer after the other, with a pause between, each timed."""

import random
import time
from collections.abc import Sequence
from itertools import count

import msgspec

from bench.draws import Pair
from bench.loads.base import AMOUNT_MAX, Tally, run_together
from bench.loads.batches import CURRENCY, Connection
from tandem.local.progress import Report

CLIENTS = 8
# As a client that has something else to do: what is measured is the service, not the processor.
PAUSE_S = 0.02


class HonestTally(Tally):
    """Besides the transfers: how long each answer took, in s, whatever it said."""

    def __init__(self) -> None:
        super().__init__()
        self.latencies: list[float] = []

    def add(self, done: Tally) -> None:
        super().add(done)
        if isinstance(done, HonestTally):
            self.latencies += done.latencies


class Honest:
    """The load, on accounts that are there and have money. Each client draws from `pairs`."""

    def __init__(self, title: str, url: str, run: str, pairs: Sequence[Pair]) -> None:
        self.title = title
        self._url = url
        self._run = run
        self._pairs = pairs

    def set_up(self, report: Report) -> None:
        """Nothing is to be done."""

    def open(self) -> "HonestRunner":
        names = [f"{self._run}-{number}" for number in range(CLIENTS)]
        return HonestRunner([Client(self._url, name, self._pairs) for name in names])

    def violations(self, total: Tally) -> list[str]:
        """Who has made the accounts checks them."""
        return []


class HonestRunner:
    """Clients, each in a thread of its own."""

    def __init__(self, clients: "list[Client]") -> None:
        self._clients = clients

    def run(self, seconds: float) -> HonestTally:
        return run_together([client.run for client in self._clients], seconds, HonestTally())

    def close(self) -> None:
        for client in self._clients:
            client.close()


class Client:
    """Sends one transfer after the other on one connection."""

    def __init__(self, url: str, name: str, pairs: Sequence[Pair]) -> None:
        self._url = url
        self._connection = Connection(url)
        self._name = name
        self._pairs = pairs
        self._chance = random.Random(name)
        self._numbers = count()

    def run(self, until: float) -> HonestTally:
        """Until that moment of the monotonic clock."""
        tally = HonestTally()
        while time.monotonic() < until:
            began = time.monotonic()
            answer = self._send()
            tally.latencies.append(time.monotonic() - began)
            if answer == "201":
                tally.committed += 1
            else:
                tally.other[f"answered {answer}"] += 1
            time.sleep(PAUSE_S)
        return tally

    def _send(self) -> str:
        source, destination = self._chance.choice(self._pairs)
        body = {
            "source": source,
            "destination": destination,
            "amount": self._chance.randint(1, AMOUNT_MAX),
            "currency": CURRENCY,
        }
        key = {"Idempotency-Key": f"{self._name}-{next(self._numbers)}"}
        try:
            status, _ = self._connection.send("/v1/transfers", msgspec.json.encode(body), key)
        except OSError as error:
            self.close()
            self._connection = Connection(self._url)
            return type(error).__name__
        return f"{status}"

    def close(self) -> None:
        self._connection.close()
