"""Two accounts whose rows a test changes as somebody would who can write to the shards."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.auditing.audit import AuditResult, audit
from coordinator.auditing.shard_audit import Violation
from ledger.model import Entry
from tandem.local.progress import silent
from tests.bank import Bank, client, post, transfer
from tests.cluster import Cluster


class Books:
    """Two accounts on different shards that have traded with each other."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.bank = Bank(cluster, 2)
        self.victim, self.other = self.bank.two_across()
        pairs = [(self.victim, self.other), (self.other, self.victim)] * 3
        items = [transfer(*pair, 10 + n, uuid.uuid4().hex) for n, pair in enumerate(pairs)]
        with client(cluster.urls[0]) as http:
            results = post(http, "/v1/transfers/batch", {"transfers": items})["results"]
        assert {result["status"] for result in results} == {"committed"}

    def sql(self, statement: str, account: str = "") -> list[tuple]:
        """Run a statement as the shard's administrator; `@` stands for the account."""
        account = account or self.victim
        return self.cluster.rows(self.bank.shard_of(account), statement.replace("@", account))

    def entries(self, account: str = "") -> list[Entry]:
        rows = self.sql("SELECT * FROM entries WHERE account_id = '@' ORDER BY number", account)
        return [Entry(*row) for row in rows]

    def write(self, entries: list[Entry], account: str = "") -> None:
        """Put these entries in the place of all that an account has."""
        self.sql("DELETE FROM entries WHERE account_id = '@'", account)
        rows = ",".join(str(tuple(entry)) for entry in entries)
        self.sql(f"INSERT INTO entries VALUES {rows}", account)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """What the block does to both accounts and their transfers is undone."""
        accounts = (self.victim, self.other)
        where = {
            "accounts": "id = '@'",
            "transfers": "source = '@'",
            "phases": f"source IN {accounts}",
            "steps": f"account IN {accounts}",
        }
        kept = {
            (account, table): self.sql(f"SELECT * FROM {table} WHERE {where[table]}", account)
            for account in accounts
            for table in where
        }
        entries = {account: self.entries(account) for account in accounts}
        try:
            yield
        finally:
            for account in accounts:
                self.write(entries[account], account)
            for (account, table), rows in kept.items():
                self.sql(f"DELETE FROM {table} WHERE {where[table]}", account)
                for row in rows:
                    values = ",".join("NULL" if v is None else repr(v) for v in row)
                    self.sql(f"INSERT INTO {table} VALUES ({values})", account)

    def audit(self, **options: Path) -> AuditResult:
        return audit(self.cluster.settings, silent, **options)

    def wrong(self) -> list[Violation]:
        """What the audit says of the victim."""
        found = self.audit().violations
        assert {v.subject for v in found if v.subject.startswith(self.bank.prefix)} == {self.victim}
        return [violation for violation in found if violation.subject == self.victim]
