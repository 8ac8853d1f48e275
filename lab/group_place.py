"""Where event sourcing runs: a cluster with one ledger group, its node and its read side."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from coordinator.cluster import read_map
from eventstore.client import Client
from eventstore.wire.errors import ClientError
from eventstore.wire.questions import (
    Accounts,
    AccountsAre,
    At,
    Barrier,
    BooksAreOpen,
    Describe,
    Description,
    EntriesPage,
    OpenBooks,
)
from lab.parts import READ_TIMEOUT_S, ReadSum
from lab.result import Deal
from lab.schedule import COORDINATORS, NODE, READ_SIDE, SHARDS
from lab.service_place import COORDINATOR, ServicePlace
from ledger.ids import SLOT_COUNT, slot_of
from ledger.model import Entry
from tandem.chaos.lists import look
from tandem.chaos.workload import Wire
from tandem.local.cluster import LocalCluster, Options
from tandem.local.errors import LocalError
from tandem.local.ports import HOST
from tandem.local.progress import Report

# The read side may have begun anew, and has all of the list to read then.
_ANSWER_S = 60.0
_CONNECT_S = 10.0
_PAGE = 5000


class GroupPlace(ServicePlace):
    """A ledger group; see parts.Place."""

    names = (NODE, READ_SIDE, *COORDINATORS)

    def __init__(self, local: LocalCluster, wire: Wire) -> None:
        super().__init__(local, wire)
        (self._where,) = read_map(self.settings).shards.values()
        self._reads_port = next(
            part["port"] for part in local.status()["processes"] if part["name"] == READ_SIDE
        )
        with self._connected() as (node, _):
            described = node.ask(Describe(), Description, _ANSWER_S)
        self.versions: Mapping[str, str] = {NODE: f"ledger group, Tandem {described.version}"}

    def shard_of(self, account: str) -> str:
        """Accounts are told apart as two shards would have them; the group has them all."""
        return SHARDS[slot_of(account) * len(SHARDS) // SLOT_COUNT]

    def readers(self, accounts: Sequence[str]) -> dict[str, ReadSum]:
        return {READ_SIDE: SumReader(self._reads, accounts)}

    def balances(self, accounts: Sequence[str]) -> dict[str, int]:
        with self._connected() as (node, reads):
            at = node.ask(Barrier(), At, _ANSWER_S)
            told = reads.ask(Accounts(list(accounts), at.seq), AccountsAre, _ANSWER_S)
        return {dated.account.id: dated.account.balance for dated in told.accounts if dated}

    def moved(self, accounts: Sequence[str]) -> dict[tuple[str, str], int]:
        """What each transfer has put on each account, by (transfer, account), from the entries."""
        found: Counter[tuple[str, str]] = Counter()
        ours = frozenset(accounts)
        with self._connected() as (node, reads):
            at = node.ask(Barrier(), At, _ANSWER_S)
            opened = reads.ask(OpenBooks(at.seq), BooksAreOpen, _ANSWER_S)
            for entry in _entries(reads, opened.books):
                if entry.account in ours:
                    found[entry.transfer, entry.account] += entry.amount
        return found

    def violations(self, deals: Sequence[Deal]) -> list[str]:
        """Besides: its list, replayed by a new machine, beside what its read side tells."""
        replayed = look(self.settings, NODE, self._where, self.local.data_dir / NODE)
        told = [f"{wrong.way}: {wrong.subject}: {wrong.detail}" for wrong in replayed.violations]
        return super().violations(deals) + told

    @contextmanager
    def _connected(self) -> Iterator[tuple[Client, Client]]:
        """Connections to the node and to its read side, for the block. Raises LocalError, also for
        what the block asks and is not told.
        """
        with ExitStack() as stack:
            node = stack.enter_context(closing(self._client(self._where.host, self._where.port)))
            reads = stack.enter_context(closing(self._reads()))
            try:
                node.connect()
                reads.connect()
                yield node, reads
            except (ClientError, TimeoutError) as error:
                why = error or f"no answer within {_ANSWER_S:.0f} s"
                raise LocalError(f"the ledger group cannot be asked: {why}") from error

    def _reads(self) -> Client:
        """A client of the read side, which is not connected yet."""
        return self._client(HOST, self._reads_port)

    def _client(self, host: str, port: int) -> Client:
        secret = self.settings.eventstore.secret.encode()
        return Client(host, port, secret, self.settings.cluster.id, connect_timeout_s=_CONNECT_S)


class SumReader:
    """Reads what the group's accounts hold, as any client of the read side could. It asks for
    nothing earlier than it was told before: a read side that begins anew has an earlier moment.
    """

    def __init__(self, new: Callable[[], Client], accounts: Sequence[str]) -> None:
        """`new` makes a client of the read side, which is not connected yet."""
        self._new = new
        self._accounts = list(accounts)
        self._seen = 0
        self._client: Client | None = None

    def __call__(self) -> int | None:
        try:
            if self._client is None:
                self._client = self._new()
                self._client.connect()
            question = Accounts(self._accounts, min_seq=self._seen)
            told = self._client.ask(question, AccountsAre, READ_TIMEOUT_S)
        except (ClientError, TimeoutError):
            self._forget()
            return None
        self._seen = told.as_of.seq
        return sum(dated.account.balance for dated in told.accounts if dated)

    def _forget(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _entries(reads: Client, books: int) -> Iterator[Entry]:
    after = ("", 0)
    while page := reads.ask(EntriesPage(books, after, _PAGE), list[Entry], _ANSWER_S):
        yield from page
        after = (page[-1].account, page[-1].number)


@contextmanager
def group_place(folder: Path, wire: Wire, report: Report) -> Iterator[GroupPlace]:
    """A place for the block, with everything ready. Raises LocalError, ClusterError."""
    local = LocalCluster(folder, coordinator_environment=COORDINATOR)
    try:
        options = Options(coordinators=len(COORDINATORS), engine="eventstore")
        local.up(options, report)
        yield GroupPlace(local, wire)
    finally:
        local.down(kill=True)
