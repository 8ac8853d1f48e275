"""What the tests of the HTTP contract share: accounts on chosen shards, requests whose answers are
held against the OpenAPI document, and what must not have changed.
"""

import itertools
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx
import jsonschema_rs
import pymysql

from coordinator.engine.planning import plan
from coordinator.engine.tickets import Latch, Ticket
from coordinator.http.openapi import document
from ledger.ids import transfer_id
from ledger.model import Transfer
from shard_client.address import Address
from shard_client.branch import Branch
from shard_client.connection import ShardConnection
from shard_client.xid import Gtrid
from tests.cluster import Cluster
from tests.contract.stores import store_of

EUR = "EUR"
# What an error says about what it has done; every one that might have done something must.
_SAYS = re.compile(
    r"nothing (was changed|has happened)|no money has moved|is not known", re.IGNORECASE
)


class Town:
    """A test's own accounts: no other test's have their prefix."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.urls = cluster.urls
        self.api = client(cluster.urls[0])
        self.other = client(cluster.urls[1])
        self.store = store_of(cluster)
        self.renew()

    def renew(self) -> None:
        """Begin anew with other names; what was opened before is somebody else's now."""
        self.prefix = f"t{uuid.uuid4().hex[:10]}"
        self._numbers = itertools.count()
        self._issuers: dict[str, str] = {}
        self._names: list[str] = []

    def rows(self, shard: str, statement: str) -> list[tuple]:
        return self.store.rows(shard, statement)

    # --- accounts ---------------------------------------------------------------------------

    def shard_of(self, account: str) -> str:
        return self.store.shard_of(account)

    def name(self, shard: str | None = None) -> str:
        """An account id that nobody has, on this shard, if the cluster has it."""
        wanted = {shard} & self.store.shards
        names = (f"{self.prefix}-{number}" for number in self._numbers)
        self._names.append(next(n for n in names if not wanted or self.shard_of(n) in wanted))
        return self._names[-1]

    def account(
        self, shard: str | None = None, *, funds: int = 0, currency: str = EUR, **terms: Any
    ) -> str:
        """An open account on this shard, with funds."""
        name = self.name(shard)
        answer = self.api.put(f"/v1/accounts/{name}", json={"currency": currency, **terms})
        assert answer.status_code == 201, answer.text
        if funds:
            self.fund(name, funds, currency)
        return name

    def pair(self, funds: int = 0) -> tuple[str, str]:
        """An account with funds on s1 and one without on s2."""
        return self.account("s1", funds=funds), self.account("s2")

    def fund(self, account: str, amount: int, currency: str = EUR) -> None:
        answer = self.transfer(self.issuer(currency), account, amount, currency=currency)
        assert answer.status_code == 201, answer.text

    def issuer(self, currency: str) -> str:
        """The account that this currency's funds come from."""
        if currency not in self._issuers:
            self._issuers[currency] = self.account(currency=currency, overdraft_limit=None)
        return self._issuers[currency]

    def balance(self, account: str) -> int:
        answer = self.api.get(f"/v1/accounts/{account}")
        assert answer.status_code == 200, answer.text
        return answer.json()["balance"]

    # --- transfers --------------------------------------------------------------------------

    def transfer(
        self,
        source: str,
        destination: str,
        amount: int,
        key: str | None = None,
        *,
        api: httpx.Client | None = None,
        headers: Mapping[str, str] = {},
        **body: Any,
    ) -> httpx.Response:
        return (api or self.api).post(
            "/v1/transfers",
            json=wish(source, destination, amount) | body,
            headers={"Idempotency-Key": key or uuid.uuid4().hex, **headers},
        )

    # --- what is kept -----------------------------------------------------------------------

    @property
    def default(self) -> str:
        """The protocol of transfers that name none."""
        return self.store.protocols[0]

    @contextmanager
    def locked(self, account: str) -> Iterator[None]:
        """Somebody else holds this account's row for a block."""
        with self.cluster.sql(self.shard_of(account)) as session, session.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [account])
            try:
                yield
            finally:
                session.rollback()

    @contextmanager
    def unchanged(self, *, but_decided: bool = False) -> Iterator[None]:
        """Nothing at all is written on any shard by the block. With `but_decided` commands may have
        come to a ledger group, whose list keeps also those that change nothing.
        """
        names = tuple(self._names)
        before = self.store.snapshot(self.prefix, names)
        yield
        after = self.store.snapshot(self.prefix, names)
        if but_decided:
            before, after = ({**kept, "commands": []} for kept in (before, after))
        assert after == before


@cache
def town_of(cluster: Cluster) -> Town:
    """The one town on a cluster of the session: its connections serve all tests."""
    return Town(cluster)


def visit(cluster: Cluster) -> Town:
    """A town for one test, with names that no other test has."""
    town = town_of(cluster)
    town.renew()
    return town


class InDoubt:
    """A transfer whose coordinator has died after its source's shard had prepared, and before it
    decided on its home, the destination's shard.
    """

    def __init__(
        self, town: Town, source: str, destination: str, amount: int, key: str, **body: Any
    ) -> None:
        self.id = transfer_id(source, key)
        self._deadline = time.monotonic() + 60
        shards = (town.shard_of(source), town.shard_of(destination))
        cluster = town.cluster.settings.cluster.id
        gtrid = Gtrid(cluster, shards[1], "zz", time.time_ns() // 10**6, uuid.uuid4().int % 2**64)
        now = time.time_ns() // 1000
        wished = Transfer(self.id, key, source, destination, amount, EUR, None, "xa", now)
        ticket = Ticket(wished, self._deadline, Latch(1), None)
        ticket.shards = shards
        self.branch = Branch(connect(town.cluster, shards[0]), str(gtrid), is_local=False)
        self._home = Branch(connect(town.cluster, shards[1]), str(gtrid), is_local=True)
        accounts = self.branch.lock([source], [self.id], self._deadline).get().accounts
        accounts |= self._home.lock([destination], [], self._deadline).get().accounts
        self._writes = plan([ticket], accounts, now, str(gtrid)).writes
        self.branch.write(self._writes[shards[0]], self._deadline).get()
        self._is_finished = False

    def decide(self) -> None:
        """Home says committed; the branch is not finished."""
        home = self._home
        home.write(self._writes[home.shard], self._deadline).get()
        home.decide([self.branch.shard], time.time_ns() // 1000, self._deadline).get()

    def commit(self) -> None:
        self.branch.commit(self._deadline).get()
        self._is_finished = True

    def roll_back(self) -> None:
        self.branch.roll_back(self._deadline).get()
        self._is_finished = True

    def close(self) -> None:
        try:
            if not self._is_finished:
                self.roll_back()
        finally:
            self.branch.connection.close()
            self._home.connection.close()


@contextmanager
def in_doubt(town: Town, source: str, destination: str, amount: int, key: str) -> Iterator[InDoubt]:
    """A transfer in doubt for a block; it is rolled back afterwards if the block has not finished
    it.
    """
    transfer = InDoubt(town, source, destination, amount, key)
    try:
        yield transfer
    finally:
        transfer.close()


def connect(cluster: Cluster, shard: str) -> ShardConnection:
    session = cluster.sql(shard)
    host, port = session.host, session.port
    session.close()
    mysql = cluster.settings.mysql
    address = Address(shard, host, port, "tandem", mysql.admin_user, mysql.admin_password)
    return ShardConnection(address, 5.0, 60)


def execute(cluster: Cluster, shard: str, statement: str) -> None:
    session: pymysql.connections.Connection[Any] = cluster.sql(shard)
    with session, session.cursor() as cursor:
        cursor.execute(statement)


def wish(source: str, destination: str, amount: int) -> dict[str, Any]:
    """The body of a transfer."""
    return {"source": source, "destination": destination, "amount": amount, "currency": EUR}


def item(source: str, destination: str, amount: int, key: str) -> dict[str, Any]:
    """An item of a batch of transfers."""
    return {**wish(source, destination, amount), "idempotency_key": key}


def results(answer: httpx.Response) -> list[dict[str, Any]]:
    """The results of a batch that was taken."""
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def placeless(told: dict[str, Any]) -> dict[str, Any]:
    """An answer without where in the list of a ledger group it is of; of others it has nothing."""
    return {name: value for name, value in told.items() if name not in ("as_of", "seq")}


def is_problem(answer: httpx.Response, status: int, kind: str, *named: str) -> dict[str, Any]:
    """Assert that an answer is this problem, whose detail names these values."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"/problems/{kind}", problem
    assert problem["status"] == status
    assert problem["title"]
    if answer.request.method != "GET":
        assert _SAYS.search(problem["detail"]), problem["detail"]
    for value in named:
        assert value in problem["detail"]
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1
    return problem


# --- every answer against the OpenAPI document ----------------------------------------------


def client(url: str, **options: Any) -> httpx.Client:
    """A client that fails on an answer that the OpenAPI document does not describe."""
    hooks = {"response": [_hold_against_document]}
    # Nothing is verified by plain HTTP, and to read all authorities takes 50 ms.
    options = {"verify": url.startswith("https:"), **options}
    return httpx.Client(base_url=url, timeout=60, event_hooks=hooks, **options)


def _hold_against_document(answer: httpx.Response) -> None:
    answer.read()
    assert answer.headers.get("X-Request-Id"), f"no X-Request-Id: {answer.status_code}"
    operation = _operation(answer.request.method, answer.request.url.path)
    if operation is None:
        return
    described = operation["responses"].get(str(answer.status_code))
    assert described, f"{answer.status_code} is not in the document: {answer.text[:300]}"
    media = answer.headers["Content-Type"]
    assert media in described["content"], f"{media} is not in the document"
    _validator(_reference(described["content"][media]["schema"])).validate(answer.json())


def _operation(method: str, path: str) -> dict[str, Any] | None:
    """What the document says of a request; a path without parameters goes before one with them."""
    paths: dict[str, Any] = document()["paths"]
    for template in sorted(paths, key=lambda text: text.count("{")):
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path):
            found: dict[str, Any] | None = paths[template].get(method.lower())
            return found
    return None


def _reference(schema: dict[str, Any]) -> tuple[str, ...]:
    return tuple(part["$ref"] for part in schema.get("anyOf", [schema]))


@cache
def _validator(references: tuple[str, ...]) -> Any:
    return jsonschema_rs.validator_for(
        {
            "anyOf": [{"$ref": reference} for reference in references],
            "components": document()["components"],
        }
    )
