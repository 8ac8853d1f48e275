"""A bank for tests: accounts, a load on them, and the oracles that must hold afterwards."""

import itertools
import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import httpx

from coordinator.auditing.audit import audit
from coordinator.cluster import read_map
from tests.cluster import Cluster, wait_until

TERMINAL = {"committed", "rejected"}


class Bank:
    """Accounts with `funds` each, in turn on each shard, paid out by an issuing account."""

    def __init__(self, cluster: Cluster, accounts: int, funds: int = 1000) -> None:
        self.cluster = cluster
        self.prefix = uuid.uuid4().hex[:8]
        self.issuer = f"{self.prefix}-bank"
        self._map = read_map(cluster.settings)
        self.accounts = [self.name(index) for index in range(accounts)]
        self.total = funds * accounts
        # By which protocols random items are, and where they go that does not exist.
        self.protocols = ["xa"]
        self.strangers: list[str] = []
        with client(cluster.urls[0]) as http:
            terms = [{"id": name, "currency": "EUR"} for name in self.accounts]
            terms.append({"id": self.issuer, "currency": "EUR", "overdraft_limit": None})
            results = post(http, "/v1/accounts/batch", {"accounts": terms})["results"]
            assert {result["status"] for result in results} == {"created"}
            items = [transfer(self.issuer, name, funds, f"fund-{name}") for name in self.accounts]
            results = post(http, "/v1/transfers/batch", {"transfers": items})["results"]
            assert {result["status"] for result in results} == {"committed"}

    def two_across(self) -> tuple[str, str]:
        """Two accounts on different shards."""
        return self.accounts[0], self.accounts[1]

    def shard_of(self, account: str) -> str:
        return self._map.shard_of(account)

    def name(self, index: int) -> str:
        """A name on the next shard: they are dealt out in turn."""
        shards = sorted(self._map.shards)
        names = (f"{self.prefix}-{index}-{salt}" for salt in itertools.count())
        return next(n for n in names if self._map.shard_of(n) == shards[index % len(shards)])

    def balances(self, url: str | None = None) -> dict[str, int]:
        """All balances as of one moment."""
        with client(url or self.cluster.urls[0]) as http:
            answer = http.get("/v1/balances", params={"account": self.accounts})
        assert answer.status_code == 200, answer.text
        return {item["account"]: item["balance"] for item in answer.json()["balances"]}

    def random_item(self, chance: random.Random, most: int = 5) -> dict:
        source, destination = chance.sample(self.accounts, 2)
        if self.strangers and not chance.randrange(5):
            destination = chance.choice(self.strangers)
        item = transfer(source, destination, chance.randint(1, most), uuid.uuid4().hex)
        return item | {"protocol": chance.choice(self.protocols)}

    def check(self) -> None:
        """The oracles: nothing is lost or made, and every invariant of the audit holds."""
        balances = self.balances()
        assert sum(balances.values()) == self.total
        assert min(balances.values()) >= 0
        result = audit(self.cluster.settings, lambda text: None)
        assert result.violations == []
        assert result.summary["transfers"] > 0


def transfer(source: str, destination: str, amount: int, key: str) -> dict:
    return {
        "source": source,
        "destination": destination,
        "amount": amount,
        "currency": "EUR",
        "idempotency_key": key,
    }


def client(url: str) -> httpx.Client:
    # Without TLS to verify, a client is made in no time.
    return httpx.Client(base_url=url, timeout=60, verify=False, trust_env=False)


def post(http: httpx.Client, path: str, body: dict) -> dict:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post_one(http: httpx.Client, item: dict) -> httpx.Response:
    body = {name: value for name, value in item.items() if name != "idempotency_key"}
    headers = {"Idempotency-Key": item["idempotency_key"]}
    return http.post("/v1/transfers", json=body, headers=headers)


def together(count: int, work: Callable[[int], None]) -> None:
    """Run `work` in so many threads at once; the first exception is raised here."""
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Load:
    """Clients that move random amounts until they are stopped, and remember every answer.

    Connections are kept; `check_answers` sends every request again in the end.
    """

    def __init__(self, bank: Bank, urls: Iterable[str]) -> None:
        self._bank = bank
        self._urls = list(urls)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        # Key -> item and the outcome that a client was told, if it was told one.
        self.told: dict[str, tuple[dict, str | None]] = {}

    def _client(self, index: int) -> None:
        chance = random.Random(index)
        with ExitStack() as stack:
            https = [stack.enter_context(client(url)) for url in self._urls]
            for turn in itertools.count(index):
                if self._stop.is_set():
                    return
                self._send(https[turn % len(https)], self._bank.random_item(chance))

    def _send(self, http: httpx.Client, item: dict) -> None:
        key = item["idempotency_key"]
        with self._lock:
            self.told[key] = (item, None)
        try:
            answer = post_one(http, item)
        except httpx.TransportError as error:
            kind = "lost" if not isinstance(error, httpx.ConnectError) else "refused connection"
            status = None
        else:
            kind = str(answer.status_code)
            status = {201: "committed", 422: "rejected"}.get(answer.status_code)
        with self._lock:
            self.counts[kind] += 1
            self.told[key] = (item, status)

    @contextmanager
    def running(self, clients: int) -> Iterator["Load"]:
        """The load is on for the block."""
        threads = [threading.Thread(target=self._client, args=(i,)) for i in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def wait_for(self, kind: str, count: int) -> None:
        """Wait until so many answers of a kind have come."""
        complaint = f"{self.counts}, not {count} answers {kind}"
        wait_until(lambda: self.counts[kind] >= count, 60, complaint)

    def check_answers(self) -> None:
        """Send every request again: what was told before is told again."""
        items = list(self.told.values())
        with client(self._urls[0]) as http:
            for start in range(0, len(items), 1000):
                some = items[start : start + 1000]
                body = {"transfers": [item for item, _ in some]}
                results = post(http, "/v1/transfers/batch", body)["results"]
                for (item, told), result in zip(some, results, strict=True):
                    assert result["status"] in TERMINAL, (item, result)
                    if told:
                        assert result["status"] == told, (item, told, result)
                        assert result["replayed"], (item, told, result)
