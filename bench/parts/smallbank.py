"""SmallBank (Alomari, Cahill, Fekete, Röhm: The Cost of Serializability on Platforms That Use
Snapshot Isolation, ICDE 2008), with the mix and the amounts of H-Store and BenchBase, mapped onto
the API as far as it goes. Each client is a thread with a keep-alive connection, one request at a
time.

Each customer has a savings and a checking account, on one shard. Money from and to outside comes
from and goes to one of a few issuing accounts, which may be on any shard.

    Balance          GET /v1/balances of both accounts, as of one moment
    DepositChecking  a transfer from an issuer to checking
    TransactSavings  a transfer from savings to an issuer; refused if there is too little
    WriteCheck       Balance, then a transfer from checking to an issuer, with a penalty of one
                     if both accounts together have too little
    SendPayment      a transfer from one customer's checking to another's
    Amalgamate       Balance, then savings and checking to another customer's checking: two
                     transfers in one batch

Of WriteCheck and Amalgamate, reading and writing are not one transaction: the API has none that is
open between requests. A transfer is refused when the money has gone meanwhile. Amalgamate's two
transfers are each whole; one may be refused without the other. A transaction of which a transfer
was refused counts: it was answered. How many transfers were is told beside.
"""

import random
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from http.client import HTTPConnection
from itertools import cycle, islice
from statistics import median
from urllib.parse import urlencode, urlsplit

import msgspec

from bench import oracles
from bench.host import hosted
from bench.loads.base import Tally, run_together
from bench.loads.batches import CURRENCY, Connection
from bench.parts.base import Finding, Outcome, Sizes
from bench.place import Place, cluster
from bench.quantiles import percentile
from tandem.local.progress import Report

# Shares of 100, and amounts in cents.
MIX = {
    "Amalgamate": 15,
    "Balance": 15,
    "DepositChecking": 15,
    "SendPayment": 25,
    "TransactSavings": 15,
    "WriteCheck": 15,
}
DEPOSIT, SAVINGS, CHECK, PAYMENT, PENALTY = 130, 2020, 500, 500, 1
FUNDS_LEAST, FUNDS_MOST = 1_000_000, 5_000_000
# How far a check may overdraw a checking account.
_OVERDRAFT = 100_000
_ISSUERS = 16
# H-Store's hot spot: so many customers have so large a share of the transactions.
HOT_CUSTOMERS = 100
HOT_SHARE = 0.9
_SET_UP_BATCH = 2000
_TIMEOUT_S = 60.0
_PAUSE_S = 0.05


class SmallBankTally(Tally):
    """Besides the transfers: how long each transaction took, in s, by its type."""

    def __init__(self) -> None:
        super().__init__()
        self.latencies: dict[str, list[float]] = defaultdict(list)

    def add(self, done: Tally) -> None:
        super().add(done)
        if isinstance(done, SmallBankTally):
            for name, some in done.latencies.items():
                self.latencies[name] += some

    @property
    def transactions(self) -> int:
        return sum(map(len, self.latencies.values()))


class SmallBank:
    """The load; its accounts' ids begin with the name of the run."""

    def __init__(
        self, place: Place, customers: int, clients: int, run: str, *, has_hot_spot: bool
    ) -> None:
        self.title = f"SmallBank, {'hot spot' if has_hot_spot else 'uniform'}"
        self._place = place
        self._customers = customers
        self._clients = clients
        self._run = run
        self._has_hot_spot = has_hot_spot
        self._names = Names(f"bench.{run}")
        self._funded = 0

    def set_up(self, report: Report) -> None:
        connection = Connection(self._place.urls[0])
        issuers = [self._names.issuer(number) for number in range(_ISSUERS)]
        terms = [_terms(id_, None) for id_ in issuers]
        connection.post("/v1/accounts/batch", {"accounts": terms}, "created")
        chance = random.Random(self._run)
        for first in range(0, self._customers, _SET_UP_BATCH):
            report(f"{self.title}: opening customers, {first:,} of {self._customers:,}")
            some = range(first, min(first + _SET_UP_BATCH, self._customers))
            savings, checking = map(self._names.savings, some), map(self._names.checking, some)
            accounts = [(id_, 0) for id_ in savings] + [(id_, _OVERDRAFT) for id_ in checking]
            terms = [_terms(id_, limit) for id_, limit in accounts]
            connection.post("/v1/accounts/batch", {"accounts": terms}, "created")
            payments = [
                _transfer(
                    chance.choice(issuers), id_, chance.randint(FUNDS_LEAST, FUNDS_MOST), f"f{id_}"
                )
                for id_, _ in accounts
            ]
            connection.post("/v1/transfers/batch", {"transfers": payments}, "committed")
            self._funded += len(payments)
        connection.close()

    def open(self) -> "SmallBankRunner":
        hot = HOT_CUSTOMERS if self._has_hot_spot else 0
        return SmallBankRunner(
            [
                Client(url, f"{self._run}-{number}", self._names, self._customers, hot)
                for number, url in enumerate(islice(cycle(self._place.urls), self._clients))
            ]
        )

    def violations(self, total: Tally) -> list[str]:
        least = self._funded + total.committed
        committed = range(least, least + total.other["pending"] + 1)
        return oracles.violations(self._place, f"{self._names.prefix}.", committed)


class Names:
    """Ids of accounts. Those of one customer share a shard by what stands in braces."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def savings(self, customer: int) -> str:
        return f"{self.prefix}.{{{customer}}}.savings"

    def checking(self, customer: int) -> str:
        return f"{self.prefix}.{{{customer}}}.checking"

    def issuer(self, number: int) -> str:
        return f"{self.prefix}.issuer.{number}"


class SmallBankRunner:
    """Clients, each in a thread of its own."""

    def __init__(self, clients: list["Client"]) -> None:
        self._clients = clients

    def run(self, seconds: float) -> SmallBankTally:
        return run_together([client.run for client in self._clients], seconds, SmallBankTally())

    def close(self) -> None:
        for client in self._clients:
            client.close()


class _Balance(msgspec.Struct):
    balance: int


class _Balances(msgspec.Struct):
    balances: list[_Balance]


class _Result(msgspec.Struct):
    status: str


class _Results(msgspec.Struct):
    results: list[_Result]


class _Busy(Exception):
    """The coordinator takes nothing on for a moment, or answers that it is not settled."""


class Client:
    """Makes one transaction after the other. With `hot` customers, those have most of them."""

    def __init__(self, url: str, name: str, names: Names, customers: int, hot: int) -> None:
        self._http = HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
        self._name = name
        self._names = names
        self._customers = customers
        self._hot = min(hot, customers)
        self._random = random.Random(name)
        self._count = 0
        self._tally = SmallBankTally()
        self._transactions = {
            "Amalgamate": self._amalgamate,
            "Balance": self._balance,
            "DepositChecking": self._deposit_checking,
            "SendPayment": self._send_payment,
            "TransactSavings": self._transact_savings,
            "WriteCheck": self._write_check,
        }

    def run(self, until: float) -> SmallBankTally:
        self._tally = SmallBankTally()
        while (began := time.monotonic()) < until:
            name = choose(self._random)
            try:
                self._transactions[name]()
            except _Busy as busy:
                self._tally.other[str(busy)] += 1
                time.sleep(_PAUSE_S)
            else:
                self._tally.latencies[name].append(time.monotonic() - began)
        return self._tally

    def close(self) -> None:
        self._http.close()

    # The six transactions

    def _amalgamate(self) -> None:
        first, second = self._two()
        savings, checking = self._read(first)
        pairs = [(self._names.savings(first), savings), (self._names.checking(first), checking)]
        transfers = [
            _transfer(id_, self._names.checking(second), amount, self._key())
            for id_, amount in pairs
            if amount > 0
        ]
        if transfers:
            body = self._post("/v1/transfers/batch", {"transfers": transfers}, {}, (200,))[1]
            for result in msgspec.json.decode(body, type=_Results).results:
                self._count_result(result.status)

    def _balance(self) -> None:
        self._read(self._one())

    def _deposit_checking(self) -> None:
        self._move(self._issuer(), self._names.checking(self._one()), DEPOSIT)

    def _send_payment(self) -> None:
        first, second = self._two()
        self._move(self._names.checking(first), self._names.checking(second), PAYMENT)

    def _transact_savings(self) -> None:
        self._move(self._names.savings(self._one()), self._issuer(), SAVINGS)

    def _write_check(self) -> None:
        customer = self._one()
        amount = CHECK if sum(self._read(customer)) >= CHECK else CHECK + PENALTY
        self._move(self._names.checking(customer), self._issuer(), amount)

    # What they are made of

    def _one(self) -> int:
        is_hot = self._hot and self._random.random() < HOT_SHARE
        return self._random.randrange(self._hot if is_hot else self._customers)

    def _two(self) -> tuple[int, int]:
        first = second = self._one()
        while second == first:
            second = self._one()
        return first, second

    def _issuer(self) -> str:
        return self._names.issuer(self._random.randrange(_ISSUERS))

    def _key(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"

    def _read(self, customer: int) -> tuple[int, int]:
        """Savings and checking, as of one moment."""
        ids = (self._names.savings(customer), self._names.checking(customer))
        query = urlencode([("account", id_) for id_ in ids])
        _, body = self._send("GET", f"/v1/balances?{query}", None, {}, (200,))
        first, second = msgspec.json.decode(body, type=_Balances).balances
        return first.balance, second.balance

    def _move(self, source: str, destination: str, amount: int) -> None:
        transfer = _transfer(source, destination, amount, "")
        del transfer["idempotency_key"]
        headers = {"Idempotency-Key": self._key()}
        status, _ = self._post("/v1/transfers", transfer, headers, (201, 202, 422))
        self._count_result({201: "committed", 202: "pending", 422: "rejected"}[status])

    def _count_result(self, status: str) -> None:
        if status == "committed":
            self._tally.committed += 1
        else:
            self._tally.other[status] += 1

    def _post(
        self, path: str, document: object, headers: dict[str, str], expected: Sequence[int]
    ) -> tuple[int, bytes]:
        headers = headers | {"Content-Type": "application/json"}
        return self._send("POST", path, msgspec.json.encode(document), headers, expected)

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        expected: Sequence[int],
    ) -> tuple[int, bytes]:
        self._http.request(method, path, body, headers)
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status in (429, 503):
            raise _Busy(f"answered {answer.status}")
        if answer.status not in expected:
            text = content[:300].decode()
            raise RuntimeError(f"{method} {path} answered {answer.status}: {text}")
        return answer.status, content


def _terms(id_: str, limit: int | None) -> dict[str, object]:
    return {"id": id_, "currency": CURRENCY, "overdraft_limit": limit}


def _transfer(source: str, destination: str, amount: int, key: str) -> dict[str, object]:
    return {
        "idempotency_key": key,
        "source": source,
        "destination": destination,
        "amount": amount,
        "currency": CURRENCY,
    }


def choose(chance: random.Random) -> str:
    """The type of the next transaction."""
    return chance.choices(list(MIX), list(MIX.values()))[0]


def smallbank(sizes: Sizes, report: Report) -> Outcome:
    """Transactions/s; the ratio is that of the hot spot to uniform, in each round."""
    outcome = Outcome("SmallBank")
    with cluster(sizes.data_dir, 1, sizes.workers, report) as place:
        outcome.measured_on(place)
        loads = [
            SmallBank(
                place,
                sizes.customers,
                sizes.smallbank_clients,
                secrets.token_hex(4),
                has_hot_spot=has_hot_spot,
            )
            for has_hot_spot in (False, True)
        ]
        for load in loads:
            load.set_up(report)
        totals, rates = _in_turn(loads, sizes, report)
        for load, total in zip(loads, totals, strict=True):
            report(f"Checking the bank's rules: {load.title}")
            outcome.violations += load.violations(total)
            outcome.findings += findings(load.title, total, rates[load.title])
    uniform, hot = rates.values()
    ratios = [b / a for a, b in zip(uniform, hot, strict=True)]
    outcome.findings.append(Finding("SmallBank, hot spot to uniform", {}, ratios))
    return outcome


def _in_turn(
    loads: list[SmallBank], sizes: Sizes, report: Report
) -> tuple[list[SmallBankTally], dict[str, list[float]]]:
    """What each load has done, and its transactions/s in each round. Latencies and seconds of the
    warm-up do not count.
    """
    totals = [SmallBankTally() for _ in loads]
    rates: dict[str, list[float]] = {load.title: [] for load in loads}
    with hosted(loads[0]) as first, hosted(loads[1]) as second:
        hosts = (first, second)
        for host, total in zip(hosts, totals, strict=True):
            total.add(host.run(sizes.warm_up_s))
            total.latencies.clear()
        for number in range(1, sizes.rounds + 1):
            for host, load, total in zip(hosts, loads, totals, strict=True):
                report(f"Round {number} of {sizes.rounds}, {sizes.seconds:g} s, {load.title}")
                done = host.run(sizes.seconds)
                assert isinstance(done, SmallBankTally)
                total.add(done)
                total.seconds += done.seconds
                rates[load.title].append(done.transactions / done.seconds)
    return totals, rates


def findings(title: str, total: SmallBankTally, rates: list[float]) -> list[Finding]:
    """All transactions together, then each type."""
    other = {name: float(count) for name, count in total.other.items()}
    shown = [Finding(title, {"transactions/s": median(rates)} | other)]
    for name, some in sorted(total.latencies.items()):
        figures = {
            "transactions/s": len(some) / total.seconds,
            "ms p50": percentile(some, 0.5) * 1000,
            "ms p99": percentile(some, 0.99) * 1000,
        }
        shown.append(Finding(f"{title}: {name}", figures))
    return shown
