"""What is left of a branch that cannot write, is rolled back, or loses its session: nothing."""

import pytest

from ledger.model import Account, Entry
from shard_client.branch import Branch
from shard_client.errors import DuplicateRow, ShardError, StatementRefused
from shard_client.prepared import list_prepared
from shard_client.records import StoredTransfer, Writes
from tests.cluster import wait_until
from tests.contract.bench import Bench, now, soon

# --- writes that cannot be ------------------------------------------------------------------


def _is_undone(bench: Bench, branch: Branch, names: list[str]) -> None:
    """The session is closed, and nothing of the branch is left."""
    assert not branch.connection.is_open
    wait_until(lambda: bench.free_of(names) == set(names), 5, "its locks are still there")
    assert set(bench.balances(names).values()) == {0}


def _change(name: str, balance: int) -> Account:
    return Account(name, "EUR", balance, None, "open", 1, now(), "chain")


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_write_must_find_every_row(bench: Bench, branch: Branch, is_alone: bool) -> None:
    names = bench.accounts(2)
    branch.lock(names, [], soon()).get()
    writes = Writes([_change(names[0], 5), _change(bench.name(), 5)], [], [])
    write = branch.write_unprepared if is_alone else branch.write
    with pytest.raises(StatementRefused, match=r"found \[1\] rows, not \[2\]"):
        write(writes, soon()).get()
    assert not branch.is_prepared
    assert not branch.connection.is_open
    if branch.is_local or is_alone:
        _is_undone(bench, branch, names)
    else:
        # Its vote was given in the same packet: it is there to be rolled back.
        cluster = bench.cluster.settings.cluster.id
        prepared = list_prepared(bench.connect(), cluster, soon())
        assert branch.gtrid in [str(found.gtrid) for found in prepared]


def test_rows_that_are_equal_count_as_found(bench: Bench, branch: Branch) -> None:
    names = bench.accounts(2)
    found = branch.lock(names, [], soon()).get()
    same = list(found.accounts.values())
    branch.write_unprepared(Writes(same, [], []), soon()).get()
    branch.roll_back(soon()).get()


def test_an_id_that_exists_is_a_duplicate(bench: Bench, branch: Branch) -> None:
    names = bench.accounts(2)
    transfer = bench.transfer(*names)
    stored = StoredTransfer(transfer, str(bench.gtrid()), "rejected", "why", "so", now())
    branch.lock(names, [], soon()).get()
    with pytest.raises(DuplicateRow) as caught:
        branch.write_unprepared(Writes([], [], [stored, stored]), soon()).get()
    assert caught.value.statement == 0
    _is_undone(bench, branch, names)


def test_an_entry_that_exists_is_a_duplicate(bench: Bench, branch: Branch) -> None:
    names = bench.accounts(2)
    transfer = bench.transfer(*names)
    stored = StoredTransfer(transfer, str(bench.gtrid()), "rejected", "why", "so", now())
    entry = Entry(names[0], 1, transfer.id, 5, 5, names[1], now(), "chain")
    branch.lock(names, [], soon()).get()
    with pytest.raises(DuplicateRow) as caught:
        branch.write_unprepared(Writes([], [entry, entry], [stored]), soon()).get()
    assert caught.value.statement == 1
    _is_undone(bench, branch, names)


def _impossible(case: str, name: str, stored: StoredTransfer) -> Writes:
    """What the ledger never asks for; the tables would stop it if it did."""
    entry = Entry(name, 1, stored.transfer.id, 5, 5, "x", 1, "chain")
    return {
        "beyond the limit": Writes([_change(name, -11)], [], []),
        "entry number 0": Writes([], [entry._replace(number=0)], []),
        "entry of nothing": Writes([], [entry._replace(amount=0)], []),
        "unknown status": Writes([], [], [stored._replace(status="lost")]),
        "long gtrid": Writes([], [], [stored._replace(gtrid="g" * 65)]),
        "long reason": Writes([], [], [stored._replace(reason="r" * 33)]),
        "long detail": Writes([], [], [stored._replace(detail="d" * 513)]),
    }[case]


@pytest.mark.parametrize(
    "case",
    [
        "beyond the limit",
        "entry number 0",
        "entry of nothing",
        "unknown status",
        "long gtrid",
        "long reason",
        "long detail",
    ],
)
def test_what_the_tables_forbid_is_refused(bench: Bench, case: str) -> None:
    names = bench.accounts(2, limit=10)
    stored = StoredTransfer(bench.transfer(*names), "g", "rejected", "why", "so", 1)
    branch = bench.branch("s1", bench.gtrid())
    branch.lock(names, [], soon()).get()
    with pytest.raises(StatementRefused) as caught:
        branch.write_unprepared(_impossible(case, names[0], stored), soon()).get()
    assert caught.value.statement == 0
    _is_undone(bench, branch, names)


def test_an_error_before_the_vote_leaves_nothing_prepared(bench: Bench) -> None:
    names = bench.accounts(2)
    branch = bench.branch("s1", bench.gtrid(home="s2"))
    branch.lock(names, [], soon()).get()
    entry = Entry(names[0], 1, "t", 5, 5, names[1], now(), "chain")
    with pytest.raises(DuplicateRow):
        branch.write(Writes([], [entry, entry], []), soon()).get()
    assert not branch.is_prepared
    _is_undone(bench, branch, names)
    assert list_prepared(bench.connect(), bench.cluster.settings.cluster.id, soon()) == []


# --- undoing --------------------------------------------------------------------------------


def test_rolling_back_what_is_locked(bench: Bench, branch: Branch) -> None:
    names = bench.accounts(2)
    branch.lock(names, [], soon()).get()
    branch.roll_back(soon()).get()
    assert bench.free_of(names) == set(names)
    # The session is as good as new.
    again = Branch(branch.connection, str(bench.gtrid(home="s2")), is_local=False)
    assert set(again.lock(names, [], soon()).get().accounts) == set(names)
    again.roll_back(soon()).get()


def test_rolling_back_what_is_written(bench: Bench, branch: Branch) -> None:
    names = bench.accounts(2)
    found = branch.lock(names, [], soon()).get()
    made = bench.plan(bench.gtrid(), [bench.transfer(*names)], found)
    branch.write_unprepared(made.writes["s1"], soon()).get()
    branch.roll_back(soon()).get()
    assert bench.free_of(names) == set(names)
    assert bench.balances(names) == dict.fromkeys(names, 0)


def test_rolling_back_what_is_prepared(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    names = [transfer.source, transfer.destination]
    branches = bench.prepare(gtrid, transfer)
    for branch in branches.values():
        branch.roll_back(soon()).get()
    assert bench.free_of(names, "s2") == {transfer.destination}
    assert bench.balances(names) == dict.fromkeys(names, 0)
    for table in ("decisions", "markers"):
        query = f"SELECT 1 FROM {table} WHERE gtrid = '{gtrid}'"
        assert bench.cluster.rows("s2", query) == bench.cluster.rows("s1", query) == []


def test_rolling_back_what_was_never_opened(bench: Bench, branch: Branch) -> None:
    branch.roll_back(soon()).get()
    assert branch.connection.is_open


@pytest.mark.parametrize("is_written", [False, True])
def test_a_session_that_ends_before_the_vote_leaves_nothing(
    bench: Bench, branch: Branch, is_written: bool
) -> None:
    names = bench.accounts(2)
    found = branch.lock(names, [], soon()).get()
    if is_written:
        made = bench.plan(bench.gtrid(), [bench.transfer(*names)], found)
        branch.write_unprepared(made.writes["s1"], soon()).get()
    bench.end_session(branch.connection)
    _is_undone(bench, branch, names)
    assert list_prepared(bench.connect(), bench.cluster.settings.cluster.id, soon()) == []


def test_a_decision_that_is_not_committed_ends_with_its_session(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    branches = bench.prepare(gtrid, transfer)
    home = branches["s1"]
    home.connection.query(
        [f"INSERT INTO decisions VALUES ('{gtrid}', 'committed', 's2', 0, 1)"], soon()
    )
    bench.end_session(home.connection)
    assert bench.cluster.rows("s1", f"SELECT 1 FROM decisions WHERE gtrid = '{gtrid}'") == []
    assert bench.balances([transfer.source]) == {transfer.source: 0}


def test_a_branch_that_is_used_after_its_end_is_an_error(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    branches = bench.prepare(gtrid, transfer)
    branches["s2"].roll_back(soon()).get()
    with pytest.raises(ShardError):
        branches["s2"].commit(soon()).get()
    assert not branches["s2"].connection.is_open
