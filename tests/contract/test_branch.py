"""A participant in a group: what it locks, what it writes, and what is left when it is undone."""

import threading
import time

import pytest

from ledger.ids import slot_of
from shard_client.accounts import open_all
from shard_client.branch import Branch
from shard_client.errors import TryAgain
from shard_client.records import Terms, Writes
from tests.cluster import wait_until
from tests.contract.bench import Bench, now, soon

NOTHING = Writes([], [], [])


# --- locking --------------------------------------------------------------------------------


def test_a_lock_brings_the_accounts_as_they_stand(bench: Bench, branch: Branch) -> None:
    names = bench.accounts(2, limit=50)
    found = branch.lock(names, [], soon()).get()
    assert set(found.accounts) == set(names)
    item = found.accounts[names[0]]
    assert item[:6] == (names[0], "EUR", 0, 50, "open", 0)
    assert item.stamp_floor > 0
    assert found.is_writable
    assert found.known == {}


def test_unknown_accounts_are_left_out(bench: Bench, branch: Branch) -> None:
    (known,), unknown = bench.accounts(1), bench.name()
    assert set(branch.lock([known, unknown], [], soon()).get().accounts) == {known}
    assert branch.existing([known, unknown], soon()).get() == {known}
    assert branch.existing([], soon()).get() == set()


def test_an_empty_lock(bench: Bench, branch: Branch) -> None:
    found = branch.lock([], [], soon()).get()
    assert (found.accounts, found.known) == ({}, {})


def test_ids_are_compared_byte_by_byte(bench: Bench, branch: Branch) -> None:
    name = f"a{bench.name()}"
    open_all(bench.connect(), [Terms(name, "EUR", None)], now(), soon())
    others = [f"A{name[1:]}", f"{name}.", name[:-1]]
    assert branch.lock(others, [], soon()).get().accounts == {}


def test_locked_rows_are_passed_over_at_once(bench: Bench, branch: Branch) -> None:
    names = bench.accounts(4)
    with bench.admin() as cursor:
        cursor.execute("UPDATE accounts SET balance = balance + 1 WHERE id = %s", [names[0]])
        cursor.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [names[2]])
        begun = time.monotonic()
        found = branch.lock(names, [], soon()).get()
        assert time.monotonic() - begun < 0.5
        assert set(found.accounts) == {names[1], names[3]}
        # They exist all the same: they are busy, not missing.
        assert branch.existing([names[0], names[2]], soon()).get() == {names[0], names[2]}


def test_a_prepared_branch_keeps_its_rows(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    bench.prepare(gtrid, transfer)
    (free,) = bench.accounts(1, "s2")
    other = bench.branch("s2", bench.gtrid(home="s2"))
    found = other.lock([transfer.destination, free], [], soon()).get()
    assert set(found.accounts) == {free}


@pytest.mark.parametrize(("size", "among"), [(1, 3), (2, 20), (60, 240), (1000, 2000)])
def test_a_group_locks_exactly_its_own_rows(
    bench: Bench, branch: Branch, size: int, among: int
) -> None:
    """Not a row beside them, while it locks, looks up ids and writes: however many they are."""
    everyone = bench.accounts(among)
    mine = everyone[:: among // size][:size]
    others = sorted(set(everyone) - set(mine))
    partners = mine[1:] + mine[:1] if size > 1 else [bench.name()]
    transfers = [bench.transfer(a, b) for a, b in zip(mine, partners, strict=True)]
    found = branch.lock(mine, [t.id for t in transfers], soon()).get()
    assert set(found.accounts) == set(mine)
    assert bench.free_of(everyone) == set(others)
    made = bench.plan(bench.gtrid(), transfers, found)
    branch.write_unprepared(made.writes["s1"], soon()).get()
    assert bench.free_of(everyone) == set(others)
    if not branch.connection.is_mariadb:
        locks = bench.locks_of(branch.connection)
        rows = {data.strip("'") for table, _, _, data in locks if table == "accounts"}
        assert rows == set(mine)
        tables = {table for table, _, _, _ in locks}
        assert tables <= {"accounts", "slots"}
        # Rows only, never the gaps between them, where others open accounts.
        assert {mode for _, _, mode, _ in locks} <= {"X,REC_NOT_GAP", "S,REC_NOT_GAP"}
        assert {index for _, index, _, _ in locks} == {"PRIMARY"}
    _open_beside(bench, mine)
    branch.roll_back(soon()).get()
    assert bench.free_of(everyone) == set(everyone)


def _open_beside(bench: Bench, names: list[str]) -> None:
    """An account that sorts right behind each of a few locked ones can be opened."""
    with bench.admin() as cursor:
        for name in {*names[:3], names[-1]}:
            beside = name.replace("{", "-{", 1)
            cursor.execute(
                "INSERT INTO accounts VALUES (%s, 'EUR', 0, 0, 'open', 0, 1, '', 0, 0, 1, 1)",
                [beside],
            )
            cursor.execute("INSERT INTO entries VALUES (%s, 1, 'none', 1, 1, 'x', 1, '')", [beside])


def test_a_prepared_group_locks_exactly_its_own_rows(bench: Bench) -> None:
    names = bench.accounts(100)
    mine = names[::2]
    branch = bench.branch("s1", bench.gtrid(home="s2"))
    found = branch.lock(mine, [], soon()).get()
    transfers = [bench.transfer(a, b) for a, b in zip(mine[::2], mine[1::2], strict=True)]
    made = bench.plan(bench.gtrid(), transfers, found)
    branch.write(made.writes["s1"], soon()).get()
    assert branch.is_prepared
    assert bench.free_of(names) == set(names) - set(mine)
    branch.roll_back(soon()).get()
    assert bench.free_of(names) == set(names)


# --- waiting in line ------------------------------------------------------------------------


def test_in_line_one_waits_for_a_second(bench: Bench, branch: Branch) -> None:
    (name,) = bench.accounts(1)
    with bench.admin() as cursor:
        cursor.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [name])
        begun = time.monotonic()
        with pytest.raises(TryAgain):
            branch.wait_for([name], soon()).get()
        assert 0.5 < time.monotonic() - begun < 4
    assert not branch.connection.is_open


def test_in_line_one_gets_what_becomes_free(bench: Bench, branch: Branch) -> None:
    names = bench.accounts(2)
    with bench.admin() as cursor:
        cursor.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [names[0]])
        reply = branch.wait_for(names[:1], soon())
        query = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        # InnoDB renews what it shows there only when nobody has read it for 0.1 s.
        waits = lambda: cursor.execute(query) > 0  # noqa: E731
        wait_until(waits, 0.9, "nobody waits for the lock", every_s=0.12)
    reply.get()
    # The branch is open already: its lock packet goes on in it.
    assert set(branch.lock(names, [], soon()).get().accounts) == set(names)
    assert bench.free_of(names) == set()


def test_two_groups_that_need_the_same_do_not_deadlock(bench: Bench) -> None:
    names = bench.accounts(40)
    faults: list[BaseException] = []

    def run(order: list[str]) -> None:
        try:
            for _ in range(15):
                mine = bench.branch("s1", bench.gtrid())
                mine.lock(order, [], soon()).get()
                mine.roll_back(soon()).get()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=[order]) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert faults == []


# --- slots ----------------------------------------------------------------------------------


def test_a_shard_knows_its_slots(bench: Bench, branch: Branch) -> None:
    (mine,), other = bench.accounts(1), bench.name("s2")
    found = branch.lock([mine, other], [], soon()).get()
    assert slot_of(mine) in found.slots
    assert slot_of(other) not in found.slots


def test_a_range_that_is_being_changed_reads_as_not_owned(bench: Bench, branch: Branch) -> None:
    (name,) = bench.accounts(1)
    with bench.admin() as cursor:
        cursor.execute("SELECT 1 FROM slots FOR UPDATE")
        begun = time.monotonic()
        found = branch.lock([name], [], soon()).get()
        assert time.monotonic() - begun < 0.5
    assert slot_of(name) not in found.slots


def test_a_slot_cannot_be_given_away_under_a_group(bench: Bench, branch: Branch) -> None:
    (name,) = bench.accounts(1)
    branch.lock([name], [], soon()).get()
    with bench.admin() as cursor:
        cursor.execute("SELECT 1 FROM slots FOR UPDATE SKIP LOCKED")
        assert cursor.fetchall() == ()


# --- writing --------------------------------------------------------------------------------


def test_a_group_across_two_shards(bench: Bench) -> None:
    gtrid, transfer = bench.across()
    names = (transfer.source, transfer.destination)
    branches = bench.prepare(gtrid, transfer)
    assert (branches["s1"].is_prepared, branches["s2"].is_prepared) == (False, True)
    assert bench.balances(names) == dict.fromkeys(names, 0)
    branches["s1"].decide(["s2"], now(), soon()).get()
    assert bench.balances(names) == {names[0]: -7, names[1]: 0}
    branches["s2"].commit(soon()).get()
    assert bench.balances(names) == {names[0]: -7, names[1]: 7}
    query = f"SELECT outcome, branches FROM decisions WHERE gtrid = '{gtrid}'"
    assert bench.cluster.rows("s1", query) == [("committed", "s2")]
    query = f"SELECT shard FROM markers WHERE gtrid = '{gtrid}'"
    assert bench.cluster.rows("s2", query) == [("s2",)]
    assert bench.cluster.rows("s1", query) == []


def test_the_next_lock_finds_the_outcome(bench: Bench) -> None:
    source, destination = bench.accounts(2)
    gtrid, transfer = bench.gtrid(), bench.transfer(source, destination)
    transfer = transfer._replace(metadata='{"a":[1,"\\u00fc"]}')
    refused = bench.transfer(source, source)
    branch = bench.branch("s1", gtrid)
    found = branch.lock([source, destination], [transfer.id], soon()).get()
    made = bench.plan(gtrid, [transfer, refused], found)
    branch.write_unprepared(made.writes["s1"], soon()).get()
    branch.commit_alone(soon()).get()
    later = bench.branch("s1", bench.gtrid())
    ids = [transfer.id, refused.id, bench.transfer(source, destination).id]
    known = later.lock([source, destination], ids, soon()).get().known
    assert known == dict(zip(ids, made.results, strict=False))
    assert known[refused.id].reason == "same-account"
    assert known[transfer.id].gtrid == str(gtrid)


def test_one_participant_alone_commits_in_one_phase(bench: Bench, branch: Branch) -> None:
    names = bench.accounts(2)
    found = branch.lock(names, [], soon()).get()
    made = bench.plan(bench.gtrid(), [bench.transfer(*names)], found)
    branch.write_unprepared(made.writes["s1"], soon()).get()
    branch.commit_alone(soon()).get()
    assert bench.balances(names) == {names[0]: -7, names[1]: 7}
    assert bench.free_of(names) == set(names)
    query = f"SELECT 1 FROM markers WHERE gtrid = '{branch.gtrid}'"
    assert bench.cluster.rows("s1", query) == []


NASTY = [
    "'; DROP TABLE accounts; -- ",
    '"},{"',
    "%s %d %%",
    "\\' \\\\ \\0",
    "a`b;c",
    "~" * 128,
    "],[",
    "(1),(2)",
]
METADATA = '{"text":"\'); DROP TABLE x; -- \\" \\\\ \\u0000 \\ud83d\\ude00 \U0001f600 %s"}'


@pytest.mark.parametrize("metadata", [METADATA, None])
def test_whatever_a_value_holds_is_never_sql(bench: Bench, metadata: str | None) -> None:
    names = bench.accounts(2)
    transfers = [bench.transfer(*names)._replace(key=text, metadata=metadata) for text in NASTY]
    branch = bench.branch("s1", bench.gtrid())
    found = branch.lock(names, [t.id for t in transfers], soon()).get()
    made = bench.plan(bench.gtrid(), transfers, found)
    branch.write_unprepared(made.writes["s1"], soon()).get()
    branch.commit_alone(soon()).get()
    later = bench.branch("s1", bench.gtrid())
    known = later.lock(names, [t.id for t in transfers], soon()).get().known
    assert [known[t.id].transfer for t in transfers] == transfers


@pytest.mark.parametrize("amount", [1, 2**31, 2**53 + 1, 2**63 - 1])
def test_amounts_of_every_size(bench: Bench, amount: int) -> None:
    names = bench.accounts(2)
    branch = bench.branch("s1", bench.gtrid())
    found = branch.lock(names, [], soon()).get()
    transfer = bench.transfer(*names, amount=amount)
    made = bench.plan(bench.gtrid(), [transfer], found)
    branch.write_unprepared(made.writes["s1"], soon()).get()
    branch.commit_alone(soon()).get()
    assert bench.balances(names) == {names[0]: -amount, names[1]: amount}
    later = bench.branch("s1", bench.gtrid())
    known = later.lock(names, [transfer.id], soon()).get().known
    assert known[transfer.id].transfer == transfer
