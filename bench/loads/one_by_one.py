"""One client that sends one transfer after the other, each when the last one is answered."""

import random
import time
from collections.abc import Callable
from itertools import count

import msgspec

from bench.draws import uniform
from bench.loads.base import AMOUNT_MAX, Tally
from bench.loads.batches import CURRENCY, Batches, Connection
from bench.loads.honest import PAUSE_S, HonestTally
from bench.loads.textbook import Textbook
from bench.place import Place
from tandem.local.progress import Report


class OneByOne:
    """The load, with the accounts of another one, which is not run itself. It has one thread."""

    def __init__(self, title: str, place: Place, accounts: Batches | Textbook, run: str) -> None:
        self.title = title
        self._accounts, self._url, self._run = accounts, place.urls[0], run

    def set_up(self, report: Report) -> None:
        self._accounts.set_up(report)

    def open(self) -> "TimedRunner":
        if isinstance(self._accounts, Textbook):
            textbook = self._accounts.open()
            return TimedRunner(textbook.drivers[0].once, close=textbook.close)
        client = _Client(self._url, self._accounts, self._run)
        return TimedRunner(client.once, rest=client.close)

    def violations(self, total: Tally) -> list[str]:
        return self._accounts.violations(total)

    def acknowledged(self, total: Tally) -> range:
        """How many transfers there must be, and how many there may be, after `total`."""
        if isinstance(self._accounts, Textbook):
            return range(total.committed, total.committed + 1)
        return self._accounts.acknowledged(total)


class TimedRunner:
    """Does one piece of work after the other; each counts what it has done. `rest` is called after
    each run: a coordinator closes connections that are idle for long.
    """

    def __init__(
        self,
        once: Callable[[Tally], None],
        *,
        rest: Callable[[], None] = lambda: None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._once, self._rest, self._close = once, rest, close

    def run(self, seconds: float) -> HonestTally:
        tally = HonestTally()
        began = now = time.monotonic()
        while now < began + seconds:
            self._once(tally)
            after = time.monotonic()
            tally.latencies.append(after - now)
            now = after
        tally.seconds = now - began
        self._rest()
        return tally

    def close(self) -> None:
        self._close()


class _Client:
    def __init__(self, url: str, accounts: Batches, run: str) -> None:
        self._connection = Connection(url)
        self._pairs = uniform(accounts.places(), random.Random(run))
        self._chance = random.Random(run)
        self._run, self._numbers = run, count()

    def once(self, tally: Tally) -> None:
        """One transfer; an answer that it is not committed is counted by its status."""
        source, destination = next(self._pairs)
        wish = {
            "source": source,
            "destination": destination,
            "amount": self._chance.randint(1, AMOUNT_MAX),
            "currency": CURRENCY,
        }
        key = {"Idempotency-Key": f"{self._run}-{next(self._numbers)}"}
        status, _ = self._connection.send("/v1/transfers", msgspec.json.encode(wish), key)
        if status == 201:
            tally.committed += 1
        else:
            tally.other[f"answered {status}"] += 1
            tally.other["pending"] += 1
            time.sleep(PAUSE_S)

    def close(self) -> None:
        """The next transfer connects anew."""
        self._connection.close()
