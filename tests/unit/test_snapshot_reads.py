"""Who reads together at one moment, and who is settled by it. What a shard does is in the contract
tests; here it is said by the test.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import pytest

from coordinator.services.snapshot_reads import (
    AccountsByShard,
    SnapshotRead,
    SnapshotReads,
    _Request,
)
from coordinator.shards.registry import Shards
from ledger.model import Account, Status, Transfer
from shard_client.errors import (
    ConnectionLost,
    NoneFree,
    ShardError,
    ShardUnavailable,
    SlotMoved,
    StatementRefused,
    TryAgain,
)
from shard_client.records import PhaseRow

Seen = dict[str, Account]


def account(name: str) -> Account:
    return Account(name, "EUR", 7, 0, Status.OPEN.value, 0, 0, "")


class SomeShards:
    """An account is on the shard that its first letter names."""

    def shard_of(self, name: str) -> str:
        return name[0]

    def note(self, error: ShardError) -> None:
        pass

    def look_again(self) -> None:
        pass


class Reads(SnapshotReads):
    """Each read waits for the test, which says what it sees."""

    def __init__(self) -> None:
        super().__init__(cast(Shards, SomeShards()))
        self.asked: list[tuple[set[str], bool]] = []
        self.has_begun = threading.Semaphore(0)
        self.may_see = threading.Semaphore(0)
        self.next: Callable[[set[str]], SnapshotRead] = seen_all
        # What was waited for with no lock in hand, and what is locked for good.
        self.felt: list[str] = []
        self.stuck: set[str] = set()

    def _see(self, by_shard: AccountsByShard, *, waits: bool) -> SnapshotRead:
        names = {name for some in by_shard.values() for name in some}
        self.asked.append((names, waits))
        self.has_begun.release()
        assert self.may_see.acquire(timeout=10)
        return self.next(names)

    def _can_be_had(self, account: str) -> bool:
        self.felt.append(account)
        return account not in self.stuck

    def await_waiting(self, count: int) -> None:
        give_up = time.monotonic() + 10
        with self._changed:
            while len(self._waiting) < count:
                assert time.monotonic() < give_up
                self._changed.wait(0.01)


def seen_all(names: set[str]) -> SnapshotRead:
    return SnapshotRead({name: account(name) for name in names}, set(), [], [])


@pytest.fixture
def reads() -> Reads:
    return Reads()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def begin(reads: Reads, pool: ThreadPoolExecutor, *names: str) -> "Future[Seen]":
    return pool.submit(reads.read, names)


def begin_behind(
    reads: Reads, pool: ThreadPoolExecutor, others: list[tuple[str, ...]]
) -> list["Future[Seen]"]:
    """A read of a1 that is on its way, and others that wait for their turn."""
    futures = [begin(reads, pool, "a1")]
    assert reads.has_begun.acquire(timeout=10)
    for count, names in enumerate(others, 1):
        futures.append(begin(reads, pool, *names))
        reads.await_waiting(count)
    return futures


def test_those_that_wait_are_read_together(reads: Reads, pool: ThreadPoolExecutor) -> None:
    futures = begin_behind(reads, pool, [("a2", "b1"), ("b1",), ("b2", "missing")])
    reads.next = lambda names: seen_all(names - {"missing"})
    reads.may_see.release(2)
    found = [set(future.result(10)) for future in futures]
    assert found == [{"a1"}, {"a2", "b1"}, {"b1"}, {"b2"}]
    assert reads.asked == [({"a1"}, False), ({"a2", "b1", "b2", "missing"}, False)]


def test_a_busy_account_holds_up_only_who_asked_for_it(
    reads: Reads, pool: ThreadPoolExecutor
) -> None:
    _, waits, free = begin_behind(reads, pool, [("a2", "b1"), ("b2",)])

    def b1_is_busy(names: set[str]) -> SnapshotRead:
        return seen_all(names - {"b1"})._replace(busy=names & {"b1"})

    reads.next = b1_is_busy
    reads.may_see.release(2)
    assert set(free.result(10)) == {"b2"}
    # In vain for three times without waiting, and then in line, alone.
    for _ in range(2):
        reads.may_see.release()
    for _ in range(4):
        assert reads.has_begun.acquire(timeout=10)
    assert not waits.done()
    reads.next = seen_all
    reads.may_see.release()
    assert set(waits.result(10)) == {"a2", "b1"}
    assert reads.asked[1:] == [
        ({"a2", "b1", "b2"}, False),
        ({"a2", "b1"}, False),
        ({"a2", "b1"}, False),
        ({"a2", "b1"}, True),
    ]


def test_who_waits_for_a_stuck_account_holds_up_nobody(
    reads: Reads, pool: ThreadPoolExecutor
) -> None:
    """It is waited for with no lock in hand, by one at a time, and no turn is taken meanwhile."""
    reads.stuck = {"b1"}
    reads.next = lambda names: seen_all(names - {"b1"})._replace(busy=names & {"b1"})
    waits = begin(reads, pool, "a1", "b1")
    for _ in range(3):
        reads.may_see.release()
        assert reads.has_begun.acquire(timeout=10)
    give_up = time.monotonic() + 10
    while not reads.felt:
        assert time.monotonic() < give_up
    free = begin(reads, pool, "a1")
    reads.may_see.release()
    assert set(free.result(10)) == {"a1"}
    assert not waits.done()
    # What is known to be stuck is not felt by every one that wants it.
    assert len(reads.felt) == 1
    reads.stuck, reads.next = set(), seen_all
    reads.may_see.release()
    assert set(waits.result(10)) == {"a1", "b1"}
    assert reads.asked[-1] == ({"a1", "b1"}, True)
    assert set(reads.felt) == {"b1"}


def test_a_shard_that_is_away_fails_only_who_needs_it(
    reads: Reads, pool: ThreadPoolExecutor
) -> None:
    _, needs_b, needs_a = begin_behind(reads, pool, [("a2", "b1"), ("a3",)])

    def b_is_away(names: set[str]) -> SnapshotRead:
        if any(name.startswith("b") for name in names):
            raise ShardUnavailable("b", "it is away")
        return seen_all(names)

    reads.next = b_is_away
    reads.may_see.release(3)
    with pytest.raises(ShardUnavailable, match="it is away"):
        needs_b.result(10)
    assert set(needs_a.result(10)) == {"a3"}


def test_whoever_was_in_vain_pauses(
    reads: Reads, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = threading.Semaphore(0)

    def pause(_: float) -> None:
        pauses.release()
        resume.wait(10)

    resume = threading.Event()
    monkeypatch.setattr("coordinator.services.snapshot_reads.time.sleep", pause)
    futures = begin_behind(reads, pool, [("b1",), ("a2", "b1"), ("b2",)])
    reads.next = lambda names: seen_all(names - {"b1"})._replace(busy=names & {"b1"})
    reads.may_see.release(2)
    assert set(futures[3].result(10)) == {"b2"}
    # The one that had its turn and the one that was taken along.
    for _ in range(2):
        assert pauses.acquire(timeout=10)
    assert len(reads.asked) == 2
    reads.next = seen_all
    reads.may_see.release(2)
    resume.set()
    assert [set(future.result(10)) for future in futures[1:3]] == [{"b1"}, {"a2", "b1"}]


def test_after_one_in_line_the_others_come_first(
    reads: Reads, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads.next = lambda names: seen_all(names - {"b1"})._replace(busy=names & {"b1"})
    first = begin(reads, pool, "b1")
    for _ in range(3):
        reads.may_see.release()
        assert reads.has_begun.acquire(timeout=10)
    assert reads.has_begun.acquire(timeout=10)
    assert reads.asked[-1] == ({"b1"}, True)
    # It stands in line; another that does comes before one that does not.
    second = _Request({"b2"})
    second.tries = 3
    other = pool.submit(reads._take_turn, second, time.monotonic() + 10)
    reads.await_waiting(1)
    free = begin(reads, pool, "a1")
    reads.await_waiting(2)
    # After this try the first one pauses for as long as the test likes.
    resume = threading.Event()
    monkeypatch.setattr("coordinator.services.snapshot_reads.time.sleep", lambda _: resume.wait(10))
    reads.may_see.release()
    assert reads.has_begun.acquire(timeout=10)
    assert reads.asked[-1] == ({"a1"}, False)
    assert not other.done()
    reads.next = seen_all
    reads.may_see.release()
    assert set(free.result(10)) == {"a1"}
    assert other.result(10)
    reads.may_see.release()
    reads._run(second)
    assert reads.asked[-1] == ({"b2"}, True)
    resume.set()
    reads.may_see.release()
    assert set(first.result(10)) == {"b1"}


def test_who_is_not_read_in_time_hears_so(
    reads: Reads, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begin(reads, pool, "a1")
    assert reads.has_begun.acquire(timeout=10)
    monkeypatch.setattr("coordinator.services.snapshot_reads._TIMEOUT_S", 0.05)
    with pytest.raises(TryAgain, match="other reads of many accounts are in front"):
        reads.read({"b1"})
    reads.may_see.release()
    assert set(first.result(10)) == {"a1"}
    assert reads._waiting == []


@pytest.mark.parametrize(
    ("sees", "kind", "why"),
    [
        (lambda names: seen_all(set())._replace(busy=names), TryAgain, "locked by transfers"),
        (lambda _: _raise(TryAgain("a", "lock wait timeout")), TryAgain, "locked by transfers"),
        (lambda _: _raise(ConnectionLost("a", "no answer")), ShardUnavailable, "a: no answer"),
        (lambda _: _raise(NoneFree("a", "all in use")), ShardUnavailable, "a: all in use"),
        (lambda _: _raise(SlotMoved("a", "moved")), ShardUnavailable, "a: moved"),
        (lambda _: _raise(StatementRefused("a", "no")), ShardUnavailable, "a: no"),
    ],
    ids=["busy", "locked in line", "lost", "no connection", "moved", "refused"],
)
def test_who_gives_up_says_why(
    reads: Reads,
    monkeypatch: pytest.MonkeyPatch,
    sees: Callable[[set[str]], SnapshotRead],
    kind: type[ShardError],
    why: str,
) -> None:
    monkeypatch.setattr("coordinator.services.snapshot_reads._TIMEOUT_S", -1)
    reads.next = sees
    reads.may_see.release()
    with pytest.raises(kind, match=why):
        reads.read({"a1"})


def _raise(error: ShardError) -> SnapshotRead:
    raise error


def test_who_is_being_read_has_the_answer_though_its_time_is_over(
    reads: Reads, pool: ThreadPoolExecutor
) -> None:
    request = _Request({"b1"})
    request.is_taken = reads._is_reading = True
    waits = threading.Event()
    wait = reads._changed.wait

    def noticed(timeout: float | None = None) -> bool:
        if timeout is None:
            waits.set()
        return wait(timeout)

    reads._changed.wait = noticed  # type: ignore[method-assign]
    turn = pool.submit(reads._take_turn, request, time.monotonic() - 1)
    assert waits.wait(10)
    with reads._changed:
        request.tries, request.is_taken, request.found = 1, False, {"b1": account("b1")}
        reads._changed.notify_all()
    assert turn.result(10) is False


def test_a_snapshot_shows_each_the_transfers_from_its_own_accounts() -> None:
    # It has left alice and has not come to bob yet.
    wish = Transfer("t", "k", "alice", "bob", 5, "EUR", None, "tcc", 1)
    row = PhaseRow(
        wish, "g", "confirming", "committed", "confirmed", "tried", 0, 0, 0, 0, None, None
    )
    snapshot = SnapshotRead({n: account(n) for n in ("alice", "bob", "carol")}, set(), [row], [])
    both = snapshot.of({"alice", "bob"})
    assert both is not None
    assert (both["alice"].balance, both["bob"].balance) == (7, 12)
    # Who does not see alice sees bob as he stands.
    assert snapshot.of({"bob", "carol"}) == {n: account(n) for n in ("bob", "carol")}


def test_what_was_lost_is_read_again(reads: Reads, pool: ThreadPoolExecutor) -> None:
    answers = iter([ConnectionLost("a", "no answer"), None])

    def lost_once(names: set[str]) -> SnapshotRead:
        if error := next(answers):
            raise error
        return seen_all(names)

    reads.next = lost_once
    reads.may_see.release(2)
    assert set(begin(reads, pool, "a1").result(10)) == {"a1"}
    assert len(reads.asked) == 2


def test_a_bug_does_not_keep_the_turn(reads: Reads, pool: ThreadPoolExecutor) -> None:
    def bug(names: set[str]) -> SnapshotRead:
        raise ZeroDivisionError

    reads.next = bug
    reads.may_see.release(2)
    with pytest.raises(ZeroDivisionError):
        begin(reads, pool, "a1").result(10)
    reads.next = seen_all
    assert set(begin(reads, pool, "a1").result(10)) == {"a1"}


def test_at_most_a_thousand_accounts_go_together(reads: Reads, pool: ThreadPoolExecutor) -> None:
    many = [tuple(f"a{first + n}" for n in range(400)) for first in (1000, 2000, 3000)]
    futures = begin_behind(reads, pool, many)
    reads.may_see.release(3)
    assert [len(future.result(10)) for future in futures] == [1, 400, 400, 400]
    assert sorted(len(names) for names, _ in reads.asked) == [1, 400, 800]
