"""Accounts on one shard: opened once, read as committed, balances that stay as they were."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger.model import Refusal, Status
from shard_client.accounts import (
    balance_at,
    hold,
    open_all,
    raise_floors,
    read,
    release,
    set_status,
    statement,
)
from shard_client.errors import DuplicateRow, SlotMoved, TryAgain
from shard_client.records import Terms
from tests.cluster import wait_until
from tests.contract.bench import Bench, now, soon


def move(bench: Bench, source: str, destination: str, amount: int = 7) -> int:
    """Move money within s1; gives the stamp of it."""
    branch = bench.branch("s1", bench.gtrid())
    transfer = bench.transfer(source, destination, amount=amount)
    found = branch.lock([source, destination], [transfer.id], soon()).get()
    made = bench.plan(bench.gtrid(), [transfer], found)
    branch.write_unprepared(made.writes["s1"], soon()).get()
    branch.commit_alone(soon()).get()
    return made.writes["s1"].transfers[0].decided_at


# --- opening --------------------------------------------------------------------------------


def test_opening_again_changes_nothing(bench: Bench) -> None:
    terms = [Terms(bench.name(), "EUR", 0), Terms(bench.name(), "USD", None)]
    names = [item.id for item in terms]
    first, new = open_all(bench.connect(), terms, 1000, soon())
    assert new == set(names)
    assert first == read(bench.connect(), names, soon())
    again, none_new = open_all(bench.connect(), terms, 2000, soon())
    assert (again, none_new) == (first, set())
    state = first[names[1]]
    assert state.account[1:6] == ("USD", 0, None, "open", 0)
    assert (state.created_at, state.updated_at) == (1000, 1000)


def test_an_account_that_is_there_keeps_its_terms(bench: Bench) -> None:
    (old,), new = bench.accounts(1, limit=50), bench.name()
    terms = [Terms(old, "USD", 0), Terms(new, "USD", 0)]
    states, opened = open_all(bench.connect(), terms, now(), soon())
    assert opened == {new}
    assert (states[old].account.currency, states[old].account.overdraft_limit) == ("EUR", 50)


def test_opening_none(bench: Bench) -> None:
    assert open_all(bench.connect(), [], now(), soon()) == ({}, set())


def test_opening_does_not_wait_for_a_group(bench: Bench) -> None:
    """Those that exist are read, not locked."""
    names = bench.accounts(2)
    branch = bench.branch("s1", bench.gtrid())
    branch.lock(names, [], soon()).get()
    terms = [Terms(name, "EUR", None) for name in [*names, bench.name()]]
    _, new = open_all(bench.connect(), terms, now(), soon())
    assert new == {terms[2].id}


def test_an_account_is_not_opened_on_another_shard(bench: Bench) -> None:
    mine, other = bench.name("s1"), bench.name("s2")
    with pytest.raises(SlotMoved, match=f"slot .* of account {other[:8]}"):
        open_all(bench.connect(), [Terms(mine, "EUR", 0), Terms(other, "EUR", 0)], now(), soon())
    assert read(bench.connect(), [mine], soon()) == {}


def test_many_open_the_same_at_once(bench: Bench) -> None:
    terms = [Terms(bench.name(), "EUR", 0) for _ in range(150)]
    opened: list[set[str]] = []
    start = threading.Barrier(4)

    def run(order: list[Terms]) -> None:
        start.wait()
        for _ in range(50):
            try:
                states, new = open_all(bench.connect(), order, now(), soon())
            except (TryAgain, DuplicateRow):
                continue
            assert states.keys() == {item.id for item in terms}
            opened.append(new)
            return

    orders = [terms, terms[::-1], terms[::2] + terms[1::2], terms]
    threads = [threading.Thread(target=run, args=[order]) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(opened) == 4
    # Each account is new to exactly one of them.
    assert sorted(name for new in opened for name in new) == [item.id for item in terms]


# --- reading --------------------------------------------------------------------------------


def test_reading_what_is_there(bench: Bench) -> None:
    (name,), unknown = bench.accounts(1), bench.name()
    assert read(bench.connect(), [name, unknown], soon()).keys() == {name}
    assert read(bench.connect(), [], soon()) == {}


def test_reading_on_another_shard(bench: Bench) -> None:
    with pytest.raises(SlotMoved):
        read(bench.connect(), [bench.name("s2")], soon())


def test_a_change_that_is_not_committed_is_not_read(bench: Bench) -> None:
    (name,) = bench.accounts(1)
    with bench.admin() as cursor:
        cursor.execute("UPDATE accounts SET balance = 5 WHERE id = %s", [name])
        assert read(bench.connect(), [name], soon())[name].account.balance == 0


def test_a_statement_page_by_page(bench: Bench) -> None:
    a, b = bench.accounts(2)
    for amount in range(1, 6):
        move(bench, a, b, amount)
    connection = bench.connect()

    def page(after: int | None, limit: int, *, newest_first: bool = False) -> list[int]:
        entries = statement(connection, a, after, limit, soon(), newest_first=newest_first)
        assert all(entry.account == a and entry.counterparty == b for entry in entries)
        return [entry.number for entry in entries]

    assert page(None, 100) == [1, 2, 3, 4, 5]
    assert [page(None, 2), page(2, 2), page(4, 2), page(5, 2)] == [[1, 2], [3, 4], [5], []]
    assert page(None, 2, newest_first=True) == [5, 4]
    assert page(4, 9, newest_first=True) == [3, 2, 1]
    assert page(1, 9, newest_first=True) == []
    last = statement(connection, a, 4, 1, soon(), newest_first=False)[0]
    assert (last.amount, last.balance) == (-5, -15)


# --- statuses -------------------------------------------------------------------------------


def test_statuses(bench: Bench) -> None:
    a, b = bench.accounts(2)
    frozen = set_status(bench.connect(), a, Status.FROZEN, now() + 30_000_000, soon())
    assert frozen is not None
    assert not isinstance(frozen, Refusal)
    assert read(bench.connect(), [a], soon())[a] == frozen
    assert frozen.account.status == "frozen"
    # The same again changes nothing, and the time of the last change never goes backwards.
    again = set_status(bench.connect(), a, Status.FROZEN, now(), soon())
    assert again == frozen
    opened = set_status(bench.connect(), a, Status.OPEN, now(), soon())
    assert opened is not None
    assert not isinstance(opened, Refusal)
    assert opened.updated_at == frozen.updated_at
    move(bench, a, b)
    refusal = set_status(bench.connect(), b, Status.CLOSED, now(), soon())
    assert isinstance(refusal, Refusal)
    assert read(bench.connect(), [b], soon())[b].account.status == "open"
    move(bench, b, a)
    assert set_status(bench.connect(), b, Status.CLOSED, now(), soon()) is not None
    assert read(bench.connect(), [b], soon())[b].account.status == "closed"


def test_the_status_of_nothing(bench: Bench) -> None:
    connection = bench.connect()
    assert set_status(connection, bench.name(), Status.FROZEN, now(), soon()) is None
    assert connection.is_open


def test_a_busy_account_keeps_its_status(bench: Bench) -> None:
    (name,) = bench.accounts(1)
    branch = bench.branch("s1", bench.gtrid())
    branch.lock([name], [], soon()).get()
    with pytest.raises(TryAgain):
        set_status(bench.connect(), name, Status.FROZEN, now(), soon())
    branch.roll_back(soon()).get()
    assert read(bench.connect(), [name], soon())[name].account.status == "open"


# --- the balance at a time ------------------------------------------------------------------


def test_the_balance_at_every_time(bench: Bench) -> None:
    a, b = bench.accounts(2)
    opened = now()
    stamps = [move(bench, a, b, amount) for amount in (1, 2, 3)]
    connection = bench.connect()

    def at(stamp: int) -> int:
        found = balance_at(connection, b, stamp, soon())
        assert found is not None
        assert found[0].id == b
        return found[1]

    assert at(0) == at(-1) == at(opened) == at(stamps[0] - 1) == 0
    assert [at(stamp) for stamp in stamps] == [1, 3, 6]
    assert at(stamps[1] - 1) in (1, 3)
    assert at(now()) == 6


def test_the_balance_of_nothing(bench: Bench) -> None:
    assert balance_at(bench.connect(), bench.name(), now(), soon()) is None


def test_a_balance_once_told_stays(bench: Bench) -> None:
    """A coordinator whose clock is behind comes later: its entry carries a later stamp."""
    a, b = bench.accounts(2)
    told = now() + 30_000_000
    assert balance_at(bench.connect(), a, told, soon()) is not None
    state = read(bench.connect(), [a], soon())[a].account
    assert state.stamp_floor == told + 1
    assert (state.balance, state.entry_count) == (0, 0)
    stamp = move(bench, a, b)
    assert stamp == told + 1
    later = balance_at(bench.connect(), a, told, soon())
    assert later is not None
    assert later[1] == 0
    after = balance_at(bench.connect(), a, stamp, soon())
    assert after is not None
    assert after[1] == -7


def test_a_floor_never_goes_down(bench: Bench) -> None:
    (name,) = bench.accounts(1)
    far = now() + 10_000_000
    for at in (far, far - 5, far - 10**7):
        balance_at(bench.connect(), name, at, soon())
    assert read(bench.connect(), [name], soon())[name].account.stamp_floor == far + 1


def test_who_waits_to_raise_a_floor_keeps_no_other_account(bench: Bench) -> None:
    names, stamp = sorted(bench.accounts(3)), now()
    with bench.admin() as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("SELECT 1 FROM accounts WHERE id = %s FOR UPDATE", [names[2]])
        raised = pool.submit(raise_floors, bench.connect(), None, names[0][:-1], stamp, soon())
        query = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        # InnoDB renews what it shows there only when nobody has read it for 0.1 s.
        waits = lambda: cursor.execute(query) > 0  # noqa: E731
        wait_until(waits, 0.9, "nobody waits for the lock", every_s=0.12)
        assert bench.free_of(names) == set(names[:2])
        with pytest.raises(TryAgain):
            raised.result()
    found = read(bench.connect(), names, soon())
    assert [found[name].account.stamp_floor >= stamp for name in names] == [True, True, False]


def test_a_balance_is_not_told_over_a_group_at_work(bench: Bench) -> None:
    """What it writes might be stamped before the time that was asked for."""
    a, b = bench.accounts(2)
    branch = bench.branch("s1", bench.gtrid())
    branch.lock([a, b], [], soon()).get()
    with pytest.raises(TryAgain):
        balance_at(bench.connect(), a, now(), soon())
    # A time before its last entry is settled, whatever the group does.
    assert balance_at(bench.connect(), a, 5, soon()) is not None


def test_a_final_balance_is_durable_before_it_is_told(bench: Bench) -> None:
    """Rule R2: also where the floor was past the time already, so that nothing had to be raised."""
    a, b = bench.accounts(2)
    move(bench, a, b)
    connection = bench.connect()
    if connection.is_durable_before_visible:
        return
    query = "SELECT touched FROM shard_identity"
    before = connection.rows(query, soon())[0][0]
    stamp = read(connection, [a], soon())[a].account.stamp_floor - 1
    balance_at(connection, a, stamp, soon())
    assert connection.rows(query, soon())[0][0] > before


# --- reading one moment ---------------------------------------------------------------------


def test_what_is_held_cannot_change(bench: Bench) -> None:
    names = bench.accounts(2)
    connection = bench.connect()
    found = hold(connection, names, soon(), waits=False).get()
    assert found.accounts.keys() == set(names)
    # Readers do not disturb each other; writers pass over.
    assert hold(bench.connect(), names, soon(), waits=False).get() == found
    branch = bench.branch("s1", bench.gtrid())
    assert branch.lock(names, [], soon()).get().accounts == {}
    release(connection, soon()).get()
    assert connection.is_open


def test_what_is_locked_is_left_out_or_waited_for(bench: Bench) -> None:
    names = bench.accounts(2)
    branch = bench.branch("s1", bench.gtrid())
    branch.lock(names[:1], [], soon()).get()
    assert hold(bench.connect(), names, soon(), waits=False).get().accounts.keys() == {names[1]}
    with pytest.raises(TryAgain):
        hold(bench.connect(), names, soon(), waits=True).get()
    waiting = hold(bench.connect(), names, soon(), waits=True)
    branch.roll_back(soon()).get()
    assert waiting.get().accounts.keys() == set(names)


def test_holding_on_another_shard(bench: Bench) -> None:
    with pytest.raises(SlotMoved):
        hold(bench.connect(), [bench.name("s2")], soon(), waits=False).get()
