"""A ledger group's list, when everything is healed: a new machine replays all of it, and what that
has come to is what its read side tells.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from coordinator.settings import Settings
from eventstore.client import Client
from eventstore.look import ListView
from eventstore.segments.errors import ListError
from eventstore.verify import verify
from eventstore.wire.errors import ClientError
from eventstore.wire.questions import AccountsPage, At, Barrier, BooksAreOpen, OpenBooks
from ledger.errors import Bug
from ledger.model import Account
from shard_client.shard_map import ShardAddress
from tandem.chaos.oracles import Violation, broken_list, check_told

_PAGE = 1000
# The read side may have begun anew, and has all of the list to read then.
_ANSWER_S = 60.0
_PATIENCE_S = 60.0
_PAUSE_S = 0.2


class Books(NamedTuple):
    """What a read side tells of all accounts, as of a frame."""

    seq: int
    accounts: Mapping[str, Account]


class Looked(NamedTuple):
    """How much of a list was replayed, and what was wrong."""

    frames: int
    commands: int
    violations: list[Violation]


def look(settings: Settings, shard: str, address: ShardAddress, folder: Path) -> Looked:
    """Replay the list in a folder, and compare it with its read side; both are at work."""
    try:
        books = _patiently(settings, address)
    except (ClientError, TimeoutError) as error:
        text = f"its read side cannot be asked: {error or 'no answer in time'}"
        return Looked(0, 0, [Violation("locked-left", shard, text)])
    try:
        view = ListView(folder)
        machine = view.new_machine()
        found = verify(folder, view.identity, lambda: machine, lambda seq: None, until=books.seq)
    except (ListError, Bug) as error:
        return Looked(0, 0, [broken_list(shard, str(error))])
    replayed = (machine.account(number).account for number in range(len(machine)))
    wanted = {account.id: account for account in replayed}
    return Looked(found.frames, found.commands, check_told(shard, wanted, books.accounts))


def _patiently(settings: Settings, address: ShardAddress) -> Books:
    """What the read side tells. Raises ClientError, TimeoutError."""
    give_up = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up:
        with suppress(ClientError, TimeoutError):
            return _books(settings, address)
        time.sleep(_PAUSE_S)
    return _books(settings, address)


def _books(settings: Settings, address: ShardAddress) -> Books:
    with closing(_client(settings, address.host, address.port)) as node:
        reads = node.connect().reads
        if reads is None:
            raise Bug(f"the node at {address} names no read side; a local cluster's has one")
        with closing(_client(settings, *reads)) as side:
            side.connect()
            at = node.ask(Barrier(), At, _ANSWER_S)
            opened = side.ask(OpenBooks(at.seq), BooksAreOpen, _ANSWER_S)
            accounts = {each.id: each for each in _accounts(side, opened.books)}
        return Books(opened.as_of.seq, accounts)


def _accounts(side: Client, books: int) -> Iterator[Account]:
    after = ""
    while page := side.ask(AccountsPage(books, after, _PAGE), list[Account], _ANSWER_S):
        yield from page
        after = page[-1].id


def _client(settings: Settings, host: str, port: int) -> Client:
    return Client(host, port, settings.eventstore.secret.encode(), settings.cluster.id)
