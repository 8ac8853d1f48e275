"""What is read on a shard is whole, or it counts for nothing: never does a cut answer mean that
something is not there.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from ledger.model import Status
from shard_client import accounts, collect, phases, prepared, transfers
from shard_client import statements as sql
from shard_client.audit import Snapshot
from shard_client.connection import ShardConnection
from shard_client.errors import ShardUnavailable, TooLarge, TryAgain
from shard_client.phases import MySqlLocalTransaction
from shard_client.records import LocalWrites, PhaseChange, Terms, Wanted
from tests.contract.bench import Bench, now, soon
from tests.contract.lone import CLUSTER, Lone

READS: dict[str, Callable[[ShardConnection, list[str]], Any]] = {
    "accounts": lambda c, ids: accounts.read(c, ids, soon()),
    "opening": lambda c, ids: accounts.open_all(c, [Terms(ids[0], "EUR", 0)], now(), soon()),
    "status": lambda c, ids: accounts.set_status(c, ids[0], Status.OPEN, now(), soon()),
    "statement": lambda c, ids: accounts.statement(c, ids[0], None, 9, soon(), newest_first=True),
    "balance": lambda c, ids: accounts.balance_at(c, ids[0], now(), soon()),
    "floors": lambda c, _: accounts.raise_floors(c, None, "", 1, soon()),
    "moment": lambda c, ids: accounts.hold(c, ids, soon(), waits=False).get(),
    "moment in line": lambda c, ids: accounts.hold(c, ids, soon(), waits=True).get(),
    "transfers": lambda c, ids: transfers.probe(c, ids, soon()),
    "transfers on their way": lambda c, ids: transfers.glimpse(c, ids, soon()),
    "steps": lambda c, ids: phases.read_steps(c, ids, soon()).get(),
    "phases": lambda c, ids: phases.phases_of(c, ids, soon()),
    "phases of groups": lambda c, ids: phases.read_phases(c, ids, soon()),
    "what is unfinished": lambda c, _: phases.list_unfinished(c, CLUSTER, soon()),
    "decisions": lambda c, ids: prepared.read_decisions(c, ids, soon()),
    "arbitration": lambda c, ids: prepared.arbitrate(c, ids, 1, soon()),
    "markers": lambda c, ids: prepared.look(c, CLUSTER, ids, soon()),
    "collected decisions": lambda c, _: collect.some_decisions(c, "", 9, soon()),
    "collected markers": lambda c, _: collect.some_markers(c, "", 9, soon()),
    "marked": lambda c, ids: collect.marked(c, ids, soon()),
    "running": lambda c, _: collect.running(c, soon()),
}


@pytest.fixture
def ids(lone: Lone) -> list[str]:
    """Accounts that exist."""
    names = [f"whole-{index}" for index in range(5)]
    with closing(lone.connect()) as connection:
        accounts.open_all(connection, [Terms(n, "EUR", 0) for n in names], now(), soon())
    return names


@pytest.mark.parametrize("limit", [0, 2])
@pytest.mark.parametrize("name", READS)
def test_a_read_that_may_be_cut(lone: Lone, ids: list[str], name: str, limit: int) -> None:
    with closing(lone.connect()) as connection:
        connection.query([f"SET SESSION sql_select_limit = {limit}"], soon())
        with pytest.raises(ShardUnavailable, match=f"sql_select_limit is {limit}"):
            READS[name](connection, ids)
        assert not connection.is_open


@pytest.mark.parametrize("variable", ["sql_select_limit", "group_concat_max_len"])
def test_a_lock_packet_that_was_cut(bench: Bench, variable: str) -> None:
    names = bench.accounts(3)
    branch = bench.branch("s1", bench.gtrid())
    branch.connection.query([f"SET SESSION {variable} = 300"], soon())
    if variable == "sql_select_limit":
        branch.connection.query(["SET SESSION sql_select_limit = 1"], soon())
    with pytest.raises(ShardUnavailable, match="counts for nothing"):
        branch.lock(names, names, soon()).get()
    existing = bench.branch("s1", bench.gtrid())
    existing.connection.query(["SET SESSION sql_select_limit = 2"], soon())
    with pytest.raises(ShardUnavailable, match="sql_select_limit is 2"):
        existing.existing(names, soon()).get()
    visit = MySqlLocalTransaction(bench.connect(), str(bench.gtrid()))
    visit.connection.query(["SET SESSION sql_select_limit = 2"], soon())
    some = set(names)
    with pytest.raises(ShardUnavailable, match="sql_select_limit is 2"):
        visit.lock(Wanted(some, some, some, some, some), soon()).get()


def test_a_text_is_asked_for_in_parts_that_fit(bench: Bench) -> None:
    """However little the server takes: all accounts are locked, and all of them come."""
    names = bench.accounts(40)
    branch = bench.branch("s1", bench.gtrid())
    branch.connection.query(["SET SESSION group_concat_max_len = 4096"], soon())
    branch.connection.packet_max = 4096
    assert sorted(branch.lock(names[:20], [], soon()).get().accounts) == names[:20]
    rest = branch.lock(names[20:], [], soon()).get()
    assert sorted(rest.accounts) == names[20:]
    assert bench.free_of(names) == set()


def test_what_somebody_else_has_changed_is_not_overwritten_whatever_the_limit(lone: Lone) -> None:
    """A SELECT of no rows is not even looked at; so the comparison is none."""
    with closing(lone.connect()) as connection:
        connection.query(["SET SESSION sql_select_limit = 0"], soon())
        visit, writes = MySqlLocalTransaction(connection, "g"), LocalWrites()
        writes.changed.append(PhaseChange(("no such transfer", "g"), "trying", None))
        with pytest.raises(TryAgain):
            visit.commit(writes, soon()).get()


@pytest.mark.parametrize("packet", [1024, 16384, 131072])
def test_a_shard_is_read_whole_however_small_its_packets(lone: Lone, packet: int) -> None:
    names = sorted(f"page-{index:04d}" for index in range(700))
    with closing(lone.connect()) as connection:
        terms = [Terms(name, "EUR", 0) for name in names]
        accounts.open_all(connection, terms, now(), soon())
        rows = [(name, 1, f"t{name}", 1, 1, name, 1, "c") for name in names]
        connection.query([sql.insert(sql.INSERT_ENTRIES, rows)], soon())
    try:
        small = lone.variables({"max_allowed_packet": packet})
        with small, closing(Snapshot(lone.address)) as snapshot:
            found = [a.id for a in snapshot.accounts() if a.id.startswith("page-")]
            assert found == names
            assert [e.account for e in snapshot.entries()] == names
    finally:
        lone.admin("DELETE FROM entries WHERE account_id LIKE 'page-%'")
        lone.admin("DELETE FROM accounts WHERE id LIKE 'page-%'")


def test_a_row_that_fits_nowhere_is_no_end(lone: Lone, ids: list[str]) -> None:
    with closing(Snapshot(lone.address)) as snapshot:
        snapshot._asked("SET SESSION group_concat_max_len = 50")
        with pytest.raises(ShardUnavailable, match="a row of accounts behind the beginning"):
            list(snapshot.accounts())
    with closing(Snapshot(lone.address)) as snapshot:
        snapshot._asked("SET SESSION sql_select_limit = 2")
        with pytest.raises(ShardUnavailable, match="sql_select_limit is"):
            list(snapshot.by_transfer([0], 1))
        with pytest.raises(ShardUnavailable, match="sql_select_limit is"):
            snapshot.slots()


def test_a_packet_that_the_server_would_not_take_is_named(lone: Lone) -> None:
    small = lone.variables({"max_allowed_packet": 2048})
    with (
        small,
        closing(lone.connect()) as connection,
        pytest.raises(TooLarge, match="packet, 2048"),
    ):
        connection.query([f"SELECT '{'x' * 3000}'"], soon())
