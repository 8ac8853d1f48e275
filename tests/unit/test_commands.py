"""Transfers on their way to a shard that decides them: nothing lost, nothing told too early."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest

from coordinator.engine import commands as engine
from coordinator.engine.commands import Commands
from coordinator.engine.parcels import Parcel, loads
from coordinator.engine.scheduler import Closed, InUse, Overloaded
from coordinator.engine.tickets import (
    Latch,
    NotExecuted,
    NotExecutedReason,
    Refused,
    Settled,
    State,
    Ticket,
)
from ledger.columns import Columns
from ledger.errors import Bug
from ledger.ids import transfer_id
from ledger.model import Reason, Refusal, Transfer
from shard_client.columns import DecidedTogether, Packed
from shard_client.errors import ConnectionLost, ShardError, ShardUnavailable, TryAgain
from shard_client.node import Decider
from shard_client.records import Decided, StoredTransfer
from tests.cluster import wait_until

SHARD = "s1"


class Group(Decider):
    """A shard that decides when the test says so."""

    def __init__(self) -> None:
        self.decider = self.reads = self
        self.asked: list[tuple[list[Transfer], Future]] = []
        self.refuses: ShardError | None = None
        self.poison = ""
        self.found: dict[str, StoredTransfer] = {}

    def decide(self, transfers: Sequence[Transfer]) -> Future:
        if self.refuses:
            raise self.refuses
        if self.poison in {transfer.key for transfer in transfers}:
            raise Bug("it cannot be packed")
        future: Future = Future()
        self.asked.append((list(transfers), future))
        return future

    def pack(self, columns: Columns, protocol: str, now: int, deadline: float) -> Packed:
        raise Bug("these tests send no columns")

    def decide_packed(self, packed: Packed) -> "Future[DecidedTogether]":
        raise Bug("these tests send no columns")

    def find_transfers(self, ids: Sequence[str], deadline: float) -> dict[str, StoredTransfer]:
        return {id_: self.found[id_] for id_ in ids if id_ in self.found}

    def wait_for(self, count: int) -> tuple[list[Transfer], Future]:
        wait_until(lambda: len(self.asked) >= count, 5, "nothing was sent")
        return self.asked[count - 1]

    def answer(self, count: int, *, was_known: bool = False) -> None:
        transfers, future = self.wait_for(count)
        future.set_result([committed(t, was_known=was_known) for t in transfers])


class Shards:
    """The one shard of the map, and what is wrong with it."""

    def __init__(self) -> None:
        self.group = Group()
        self.trouble: tuple[str, float] | None = None
        self.noted: list[ShardError] = []

    def __getitem__(self, shard: str) -> Group:
        return self.group

    def shard_of(self, account: str) -> str:
        return SHARD

    def trouble_with(self, shard: str) -> tuple[str, float] | None:
        return self.trouble

    def note(self, error: ShardError) -> None:
        self.noted.append(error)


def committed(transfer: Transfer, *, was_known: bool = False) -> Decided:
    stored = StoredTransfer(transfer, "", "committed", None, None, 7)
    return Decided(stored, None, was_known)


def ticket(key: str, *, protocol: str = "", latch: Latch | None = None) -> Ticket:
    wish = Transfer(transfer_id("a", key), key, "a", "b", 5, "EUR", None, protocol, 0)
    latch = latch or Latch(1)
    return Ticket(wish, time.monotonic() + 30, latch, None, default="tcc", caller="me")


@pytest.fixture
def shards() -> Shards:
    return Shards()


@pytest.fixture
def commands(shards: Shards) -> Iterator[Commands]:
    made = Commands(shards, room=3, patience_s=0.0, default="xa")
    made.start()
    yield made
    # Whatever the test has left is answered, so that the thread ends.
    for parcel in list(made._waiting):
        made.withdraw(parcel.tickets)
    made.close(time.monotonic())


def done(one: Ticket) -> object:
    assert one.latch.wait(time.monotonic() + 5), "it has no answer"
    return one.answer


def test_it_is_sent_with_a_protocol_and_answered(commands: Commands, shards: Shards) -> None:
    one = ticket("k")
    commands.put([one], alone=True)
    (sent,), _ = shards.group.wait_for(1)
    assert (sent.key, sent.protocol) == ("k", "tcc")
    assert one.state is State.SENT
    shards.group.answer(1)
    answer = done(one)
    assert isinstance(answer, Settled)
    assert not answer.is_replay
    assert commands.unsettled == 0


def test_a_batch_keeps_its_order_and_goes_together(commands: Commands, shards: Shards) -> None:
    latch = Latch(3)
    batch = [ticket(key, latch=latch) for key in "abc"]
    commands.put(batch)
    sent, _ = shards.group.wait_for(1)
    assert [transfer.key for transfer in sent] == ["a", "b", "c"]


def test_what_was_lost_is_sent_again_and_is_no_replay(commands: Commands, shards: Shards) -> None:
    one = ticket("k")
    commands.put([one], alone=True)
    _, future = shards.group.wait_for(1)
    one.deadline = 0.0
    future.set_exception(ConnectionLost(SHARD, "gone"))
    # Its client is not told that nothing has happened, though its time is over.
    commands.withdraw([one])
    assert one.answer is None
    shards.group.wait_for(2)
    shards.group.answer(2, was_known=True)
    answer = done(one)
    assert isinstance(answer, Settled)
    assert not answer.is_replay


def test_what_was_known_before_is_a_replay(commands: Commands, shards: Shards) -> None:
    one = ticket("k")
    commands.put([one], alone=True)
    shards.group.answer(1, was_known=True)
    answer = done(one)
    assert isinstance(answer, Settled)
    assert answer.is_replay


def test_another_body_is_refused_by_what_is_recorded(commands: Commands, shards: Shards) -> None:
    one = ticket("k")
    commands.put([one], alone=True)
    (sent,), future = shards.group.wait_for(1)
    future.set_result([committed(sent._replace(amount=6), was_known=True)])
    answer = done(one)
    assert isinstance(answer, Refused)
    assert answer.refusal.reason is Reason.IDEMPOTENCY_KEY_REUSED


def test_a_refusal_without_a_record(commands: Commands, shards: Shards) -> None:
    one = ticket("k")
    commands.put([one], alone=True)
    refusal = Refusal(Reason.ACCOUNT_NOT_FOUND, "there is no a", is_recorded=False)
    shards.group.wait_for(1)[1].set_result([Decided(None, refusal, was_known=False)])
    assert done(one) == Refused(refusal)


def test_what_was_not_taken_is_sent_again_alone(commands: Commands, shards: Shards) -> None:
    latch = Latch(2)
    first, second = (ticket(key, latch=latch) for key in "ab")
    commands.put([first, second])
    sent, future = shards.group.wait_for(1)
    future.set_result([committed(sent[0]), TryAgain(SHARD, "busy")])
    again, _ = shards.group.wait_for(2)
    assert [transfer.key for transfer in again] == ["b"]
    shards.group.answer(2)
    assert latch.wait(time.monotonic() + 5)


def test_what_cannot_be_sent_may_be_withdrawn(commands: Commands, shards: Shards) -> None:
    shards.group.refuses = ShardUnavailable(SHARD, "no connection")
    one = ticket("k")
    commands.put([one], alone=True)
    wait_until(lambda: shards.noted, 5, "the shard's trouble was told to nobody")
    wait_until(lambda: one.state is State.OPEN, 5, "it counts as sent")
    commands.withdraw([one])
    answer = done(one)
    assert isinstance(answer, NotExecuted)
    assert answer.reason is NotExecutedReason.SHARD_UNAVAILABLE


def test_a_shard_in_trouble_is_told(commands: Commands, shards: Shards) -> None:
    shards.trouble = "it is frozen", 1.0
    one = ticket("k")
    commands.put([one], alone=True)
    answer = done(one)
    assert isinstance(answer, NotExecuted)
    assert "it is frozen" in answer.detail


def test_one_that_may_have_happened_waits_for_its_shard(commands: Commands, shards: Shards) -> None:
    one = ticket("k")
    commands.put([one], alone=True)
    _, lost = shards.group.wait_for(1)
    shards.trouble = "it is away", 1.0
    lost.set_exception(ConnectionLost(SHARD, "gone"))
    other = ticket("other")
    commands.put([other], alone=True)
    assert isinstance(done(other), NotExecuted)
    assert one.answer is None
    shards.trouble = None
    shards.group.wait_for(2)
    shards.group.answer(2)
    assert isinstance(done(one), Settled)


def test_two_phase_commit_is_refused_by_name(commands: Commands, shards: Shards) -> None:
    one = ticket("k", protocol="xa")
    commands.put([one], alone=True)
    answer = done(one)
    assert isinstance(answer, NotExecuted)
    assert answer.reason is NotExecutedReason.PROTOCOL
    assert shards.group.asked == []


def test_a_recorded_outcome_comes_before_the_protocol(commands: Commands, shards: Shards) -> None:
    one = ticket("k", protocol="xa")
    first = one.asked._replace(protocol="tcc")
    stored = StoredTransfer(first, "", "committed", None, None, 7)
    shards.group.found = {one.asked.id: stored}
    commands.put([one], alone=True)
    assert done(one) == Settled(stored, is_replay=True)


def test_a_bug_in_looking_up_ends_nothing(commands: Commands, shards: Shards) -> None:
    shards.group.find_transfers = None  # type: ignore[assignment]
    one = ticket("k", protocol="xa")
    commands.put([one], alone=True)
    answer = done(one)
    assert isinstance(answer, NotExecuted)
    assert answer.reason is NotExecutedReason.INTERNAL_ERROR
    other = ticket("other")
    commands.put([other], alone=True)
    shards.group.answer(1)
    assert isinstance(done(other), Settled)


def test_a_bug_in_sending_ends_nothing(
    commands: Commands, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUG_PAUSE_S", 0.0)
    shards.group.decider = None
    one = ticket("k")
    commands.put([one], alone=True)
    wait_until(lambda: not commands._waiting, 5, "it was not taken")
    shards.group.decider = shards.group
    shards.group.answer(1)
    assert isinstance(done(one), Settled)


def test_one_at_a_time_with_a_key(commands: Commands, shards: Shards) -> None:
    commands.put([ticket("k")], alone=True)
    with pytest.raises(InUse):
        commands.put([ticket("k")], alone=True)
    shards.group.answer(1)


def test_there_is_a_limit(commands: Commands, shards: Shards) -> None:
    latch = Latch(3)
    commands.put([ticket(key, latch=latch) for key in "abc"])
    with pytest.raises(Overloaded):
        commands.put([ticket(key) for key in "defghij"])
    shards.group.answer(1)
    assert latch.wait(time.monotonic() + 5)


def test_a_bug_in_one_keeps_nobody_else(commands: Commands, shards: Shards) -> None:
    shards.group.poison = "bad"
    shards.trouble = "it is not there yet", 0.0
    commands._patience_s = 60.0
    good, bad = ticket("good"), ticket("bad")
    commands.put([good], alone=True)
    commands.put([bad], alone=True)
    shards.trouble = None
    answer = done(bad)
    assert isinstance(answer, NotExecuted)
    assert answer.reason is NotExecutedReason.INTERNAL_ERROR
    shards.group.wait_for(1)
    shards.group.answer(1)
    assert isinstance(done(good), Settled)


def test_an_answer_that_cannot_be_told_is_asked_for_again(
    commands: Commands, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUG_PAUSE_S", 0.0)
    one = ticket("k")
    commands.put([one], alone=True)
    shards.group.wait_for(1)[1].set_result([Decided(None, None, was_known=False)])
    shards.group.wait_for(2)
    shards.group.answer(2)
    assert isinstance(done(one), Settled)


def test_what_is_too_much_at_once_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.engine.parcels._LOAD_MAX", 20)
    parcels = [Parcel(SHARD, [ticket(f"{n}.{i}") for i in range(9)]) for n in range(5)]
    assert [len(load) for load in loads(parcels)] == [2, 2, 1]
    long = ticket("long")
    long.transfer = long.transfer._replace(metadata="m" * (5 << 20))
    assert [len(load) for load in loads([Parcel(SHARD, [long])] * 2)] == [1, 1]


def test_closing_waits_for_answers(commands: Commands, shards: Shards) -> None:
    one = ticket("k")
    commands.put([one], alone=True)
    shards.group.wait_for(1)
    assert not commands.close(time.monotonic() + 0.05)
    with pytest.raises(Closed):
        commands.put([ticket("other")], alone=True)
    shards.group.answer(1)
    assert commands.close(time.monotonic() + 5)
