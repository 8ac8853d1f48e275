"""This engine over HTTP: batches of transfers as JSON, on connections that are kept alive.

Every transfer crosses shards, as in textbook XA, unless a ledger group is the only one. Each client
is a thread that sends its next batch when the last one is answered; clients are spread evenly over
the coordinators.
"""

import random
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from itertools import cycle, islice
from urllib.parse import urlsplit

import msgspec

from bench import group_oracles, oracles
from bench.draws import Draw, Pair, hot, uniform
from bench.loads.base import AMOUNT_MAX, FUNDS, Scale, Tally, run_together
from bench.place import Place
from tandem.local.progress import Report

CURRENCY = "EUR"
# The most that one request may hold.
_SET_UP_BATCH = 5000
_TIMEOUT_S = 60.0
_PAUSE_S = 0.05


class _Result(msgspec.Struct):
    status: str
    reason: str | None = None


class _Results(msgspec.Struct):
    results: list[_Result]


_decode = msgspec.json.Decoder(_Results).decode


class Batches:
    """The load; its accounts' ids begin with the name of the run. With `is_hot` every transfer pays
    into one account, else accounts are drawn by `draw`; all run by `protocol`. The numbers in
    accounts' ids have so many `digits` at least.
    """

    def __init__(
        self,
        place: Place,
        scale: Scale,
        run: str,
        *,
        is_hot: bool = False,
        protocol: str | None = None,
        draw: Draw = uniform,
        digits: int = 1,
    ) -> None:
        self._draw: Draw = hot if is_hot else draw
        self._digits = digits
        self.title = f"this engine, batches of {scale.batch:,}" + ", one hot account" * is_hot
        self.title += f", {protocol}" if protocol else ""
        self._protocol = protocol
        self._place = place
        self._scale = scale
        self._run = run
        self._prefix = f"bench.{run}."
        self._bank = f"{self._prefix}bank"
        self._funded = 0

    def set_up(self, report: Report) -> None:
        """Open all accounts, and a bank that pays each of them its funds."""
        connection = Connection(self._place.urls[0])
        bank = {"id": self._bank, "currency": CURRENCY, "overdraft_limit": None}
        connection.post("/v1/accounts/batch", {"accounts": [bank]}, "created")
        ids = self.ids()
        for first in range(0, len(ids), _SET_UP_BATCH):
            report(f"Opening and funding the engine's accounts: {first:,} of {len(ids):,}")
            some = ids[first : first + _SET_UP_BATCH]
            terms = [{"id": id_, "currency": CURRENCY} for id_ in some]
            connection.post("/v1/accounts/batch", {"accounts": terms}, "created")
            payments = [_transfer(f"fund-{id_}", self._bank, id_, FUNDS) for id_ in some]
            connection.post("/v1/transfers/batch", {"transfers": payments}, "committed")
        connection.close()
        self._funded = len(ids)

    def ids(self) -> list[str]:
        """Those of all its accounts."""
        numbers = range(self._scale.accounts)
        return [f"{self._prefix}{number:0{self._digits}}" for number in numbers]

    def places(self) -> list[list[str]]:
        """The accounts of each shard that has any. Of a shard alone they are two places, so that
        draws are the same everywhere.
        """
        places: dict[str, list[str]] = {shard: [] for shard in self._place.shard_map.shards}
        for id_ in self.ids():
            places[self._place.shard_map.shard_of(id_)].append(id_)
        found = [ids for ids in places.values() if ids]
        return found if len(found) > 1 else [found[0][::2], found[0][1::2]]

    def open(self) -> "BatchesRunner":
        urls = islice(cycle(self._place.urls), self._scale.clients)
        places = self.places()
        clients = []
        for number, url in enumerate(urls):
            name = f"{self._run}-{number}"
            pairs = self._draw(places, random.Random(name))
            clients.append(Client(url, name, pairs, self._scale.batch, self._protocol))
        return BatchesRunner(clients)

    def violations(self, total: Tally) -> list[str]:
        """Of a ledger group: what the API shows; transfers are counted for all loads at once."""
        if self._place.list_folder:
            return group_oracles.unbalanced(self._place.urls[0], [self._bank, *self.ids()])
        return oracles.violations(self._place, self._prefix, self.acknowledged(total))

    def acknowledged(self, total: Tally) -> range:
        """How many transfers there must be, and how many there may be, after `total`."""
        least = self._funded + total.committed
        return range(least, least + total.other["pending"] + 1)


class BatchesRunner:
    """Clients, each in a thread of its own."""

    def __init__(self, clients: list["Client"]) -> None:
        self._clients = clients

    def run(self, seconds: float) -> Tally:
        return run_together([client.run for client in self._clients], seconds, Tally())

    def close(self) -> None:
        """Nothing is kept open between runs."""


class Client:
    """Sends one batch after the other to one coordinator."""

    def __init__(
        self, url: str, name: str, pairs: Iterator[Pair], batch: int, protocol: str | None = None
    ) -> None:
        self._more = {"protocol": protocol} if protocol else {}
        self._url = url
        self._name = name
        self._pairs = pairs
        self._batch = batch
        self._count = 0

    def run(self, until: float) -> Tally:
        tally = Tally()
        connection = Connection(self._url)
        while time.monotonic() < until:
            status, body = connection.send("/v1/transfers/batch", self._next())
            if status in (429, 503):
                tally.other[f"batch answered {status}"] += 1
                time.sleep(_PAUSE_S)
                continue
            for result in _decode(_successful(status, body)).results:
                if result.status == "committed":
                    tally.committed += 1
                else:
                    tally.other[result.reason or result.status] += 1
        connection.close()
        return tally

    def _next(self) -> bytes:
        """A batch of transfers between accounts as they are drawn."""
        transfers = []
        for source, destination in islice(self._pairs, self._batch):
            self._count += 1
            amount = 1 + self._count % AMOUNT_MAX
            transfer = _transfer(f"{self._name}-{self._count}", source, destination, amount)
            transfers.append(transfer | self._more)
        return msgspec.json.encode({"transfers": transfers})


class Connection:
    """A keep-alive connection to one coordinator."""

    def __init__(self, url: str) -> None:
        self._http = HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)

    def send(self, path: str, body: bytes, headers: Mapping[str, str] = {}) -> tuple[int, bytes]:
        self._http.request("POST", path, body, {"Content-Type": "application/json", **headers})
        answer = self._http.getresponse()
        return answer.status, answer.read()

    def get(self, path: str) -> bytes:
        """What is there. Raises RuntimeError if it is not answered 200."""
        self._http.request("GET", path)
        answer = self._http.getresponse()
        return _successful(answer.status, answer.read())

    def post(self, path: str, document: object, expected: str) -> None:
        """Send a batch of which every item is to have the status `expected`."""
        answer = _successful(*self.send(path, msgspec.json.encode(document)))
        for result in _decode(answer).results:
            if result.status != expected:
                raise RuntimeError(f"{path} answered {result.status} ({result.reason})")

    def close(self) -> None:
        self._http.close()


def _transfer(key: str, source: str, destination: str, amount: int) -> dict[str, object]:
    return {
        "idempotency_key": key,
        "source": source,
        "destination": destination,
        "amount": amount,
        "currency": CURRENCY,
    }


def _successful(status: int, body: bytes) -> bytes:
    if status != 200:
        raise RuntimeError(f"the coordinator answered {status}: {body[:300].decode()}")
    return body
