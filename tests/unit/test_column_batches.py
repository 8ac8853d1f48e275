"""Batches that go as columns, before a shard that decides when the test says so."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from coordinator.engine.column_batches import ColumnBatch
from coordinator.engine.commands import Commands
from coordinator.engine.scheduler import Closed, InUse, Overloaded
from coordinator.engine.tickets import NotExecuted, NotExecutedReason, Refused, Settled, State
from coordinator.services.column_transfers import ColumnTransfers
from coordinator.services.transfers import PENDING, Transfers
from coordinator.telemetry.metrics import Metrics
from ledger.columns import Columns
from ledger.errors import Bug
from ledger.ids import transfer_id
from ledger.model import Reason, Refusal, Transfer
from shard_client.columns import DecidedTogether, Packed
from shard_client.errors import ConnectionLost, ShardError, ShardUnavailable, TryAgain
from shard_client.records import Decided
from tests.cluster import wait_until
from tests.unit.test_commands import SHARD, Group, Shards, committed, ticket

KEYS = ["a", "b", "c"]


class Pack(Packed):
    """Transfers that were packed, though not into bytes."""

    def __init__(self, keys: list[str], protocol: str) -> None:
        self.size, self._keys, self._protocol = len(keys), keys, protocol

    def id(self, index: int) -> str:
        return self.asked(index).id

    def asked(self, index: int) -> Transfer:
        key = self._keys[index]
        return Transfer(transfer_id("a", key), key, "a", "b", 5, "EUR", None, "", 0)

    def index_of(self, transfer: str) -> int | None:
        ids = [self.id(index) for index in range(self.size)]
        return ids.index(transfer) if transfer in ids else None

    def protocols(self, count: int) -> Counter[str]:
        return Counter({self._protocol: count})

    def protocol_of(self, index: int) -> str:
        return self._protocol


class ColumnGroup(Group):
    """It decides columns too."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: list[Future[DecidedTogether]] = []
        self.is_broken = False

    def pack(self, columns: Columns, protocol: str, now: int, deadline: float) -> Packed:
        return Pack(KEYS, protocol)

    def decide_packed(self, packed: Packed) -> "Future[DecidedTogether]":
        if self.refuses:
            raise self.refuses
        if self.is_broken:
            raise Bug("it cannot be sent")
        self.columns.append(Future())
        return self.columns[-1]


class Here(Shards):
    """A map of one shard, whose group decides columns."""

    def __init__(self) -> None:
        super().__init__()
        self.group: ColumnGroup = ColumnGroup()
        self.map = SimpleNamespace(shards={SHARD: None}, has_groups=True)
        self.map.shard_of_slot = lambda slot: SHARD


@pytest.fixture
def shards() -> Here:
    return Here()


@pytest.fixture
def commands(shards: Here) -> Iterator[Commands]:
    made = Commands(shards, room=5, patience_s=0.0, default="tcc")  # type: ignore[arg-type]
    made.start()
    yield made
    shards.trouble = None
    for parcel in list(made._waiting):
        made.withdraw(parcel.tickets)
    made.close(time.monotonic())


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def service(shards: Here, commands: Commands, metrics: Metrics) -> ColumnTransfers:
    transfers = Transfers(shards, None, commands, metrics, "tcc")  # type: ignore[arg-type]
    return ColumnTransfers(shards, commands, metrics, transfers)  # type: ignore[arg-type]


def submit(service: ColumnTransfers, timeout_s: float = 30) -> ColumnBatch:
    columns: Columns = None  # type: ignore[assignment]
    return service.submit(columns, timeout_s, "me")


def decided(rest: ShardError | None = None, **others: Decided) -> DecidedTogether:
    by_index = {KEYS.index(key): one for key, one in others.items()}
    return DecidedTogether(1 if rest else len(KEYS), [(0, 7)], by_index, rest)


def transfer(key: str, amount: int = 5) -> Transfer:
    wish = Pack([key], "tcc").asked(0)
    return wish._replace(amount=amount, protocol="tcc")


def may_happen(commands: Commands, transfer: str) -> bool:
    ticket = commands.find(transfer)
    return ticket is not None and ticket.state is State.SENT


def totals(metrics: Metrics) -> dict[str, float]:
    return {outcome: n for outcome, n in metrics.totals().outcomes.items() if n}


def test_all_of_it_at_once(
    service: ColumnTransfers, shards: Here, commands: Commands, metrics: Metrics
) -> None:
    batch = submit(service)
    assert commands.unsettled == 3
    assert may_happen(commands, batch.packed.id(2))
    assert not may_happen(commands, transfer_id("a", "another"))
    shards.group.columns[0].set_result(decided())
    assert service.wait(batch, 0) == {}
    assert commands.unsettled == commands.callers == 0
    assert not may_happen(commands, batch.packed.id(2))
    assert shards.group.asked == []
    assert totals(metrics) == {"committed": 3}


def test_those_that_are_not_committed_just_now(
    service: ColumnTransfers, shards: Here, metrics: Metrics
) -> None:
    batch = submit(service)
    refusal = Refusal(Reason.ACCOUNT_NOT_FOUND, "there is no b", is_recorded=False)
    replayed = committed(transfer("a"), was_known=True)
    reused = committed(transfer("c", amount=6), was_known=True)
    refused = Decided(None, refusal, was_known=False)
    shards.group.columns[0].set_result(decided(a=replayed, b=refused, c=reused))
    answers = service.wait(batch, 0)
    assert answers[0] == Settled(replayed.stored, is_replay=True)  # type: ignore[arg-type]
    assert answers[1] == Refused(refusal)
    assert isinstance(answers[2], Refused)
    assert answers[2].refusal.reason is Reason.IDEMPOTENCY_KEY_REUSED
    assert totals(metrics) == {"replayed": 1, "rejected": 2}


def test_others_have_their_turn_while_a_batch_that_came_again_is_answered(
    service: ColumnTransfers, shards: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[None] = []
    monkeypatch.setattr("coordinator.services.column_transfers._TURN", 1)
    monkeypatch.setattr(
        "coordinator.services.column_transfers._give_way", lambda: turns.append(None)
    )
    batch = submit(service)
    replayed = {key: committed(transfer(key), was_known=True) for key in KEYS}
    shards.group.columns[0].set_result(decided(**replayed))
    assert len(service.wait(batch, 0)) == len(turns) == 3


def test_what_was_not_taken_goes_on_by_itself(
    service: ColumnTransfers, shards: Here, commands: Commands, metrics: Metrics
) -> None:
    batch = submit(service)
    shards.group.columns[0].set_result(decided(TryAgain(SHARD, "busy")))
    sent, _ = shards.group.wait_for(1)
    assert [one.key for one in sent] == ["b", "c"]
    shards.group.answer(1)
    answers = service.wait(batch, 0)
    assert sorted(answers) == [1, 2]
    assert all(isinstance(answer, Settled) and not answer.is_replay for answer in answers.values())
    assert commands.unsettled == commands.callers == 0
    assert totals(metrics) == {"committed": 3}


def test_what_was_lost_is_sent_again_and_is_no_replay(
    service: ColumnTransfers, shards: Here, commands: Commands
) -> None:
    batch = submit(service)
    shards.group.columns[0].set_exception(ConnectionLost(SHARD, "gone"))
    sent, _ = shards.group.wait_for(1)
    assert [(one.key, one.protocol) for one in sent] == [(key, "tcc") for key in KEYS]
    assert may_happen(commands, batch.packed.id(0))
    shards.group.answer(1, was_known=True)
    answers = service.wait(batch, 0)
    assert [answer.is_replay for answer in answers.values()] == [False] * 3  # type: ignore[union-attr]


def test_what_is_lost_after_its_time_is_pending_and_sent_again(
    service: ColumnTransfers, shards: Here, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.services.column_transfers.SETTLE_S", 0.0)
    batch = submit(service, timeout_s=0)
    assert service.wait(batch, 0) == dict.fromkeys(range(3), PENDING)
    assert commands.unsettled == 3
    shards.group.columns[0].set_exception(ConnectionLost(SHARD, "gone"))
    shards.group.wait_for(1)
    assert all(ticket.is_pending_told for ticket in batch.tickets.values())
    shards.group.answer(1)
    assert commands.close(time.monotonic() + 5)


def test_a_key_among_columns_is_in_use(
    service: ColumnTransfers, shards: Here, commands: Commands
) -> None:
    batch = submit(service)
    with pytest.raises(InUse) as refused:
        commands.put([ticket("b")], alone=True)
    at_work = refused.value.ticket
    assert at_work.asked == batch.packed.asked(1)
    assert not at_work.is_pending_told
    assert not at_work.latch.wait(0)
    shards.group.columns[0].set_result(decided())
    assert at_work.latch.wait(0)
    commands.put([ticket("b")], alone=True)
    shards.group.answer(1)


@pytest.mark.parametrize("way", ["refused", "trouble", "not taken", "our own mistake"])
def test_what_cannot_be_sent_is_told_so(
    service: ColumnTransfers, shards: Here, commands: Commands, way: str
) -> None:
    away = ShardUnavailable(SHARD, "no connection")
    if way == "refused":
        shards.group.refuses = away
    elif way == "our own mistake":
        shards.group.is_broken, shards.group.poison = True, "b"
    elif way == "trouble":
        shards.trouble = "it is frozen", 1.0
    batch = submit(service, timeout_s=0.2)
    if way == "not taken":
        shards.group.refuses = away
        shards.group.columns[0].set_exception(away)
    answers = service.wait(batch, 0)
    assert sorted(answers) == [0, 1, 2]
    reasons = {answer.reason for answer in answers.values() if isinstance(answer, NotExecuted)}
    assert len(reasons) == 1
    is_mistake = way == "our own mistake"
    expected = NotExecutedReason.INTERNAL_ERROR if is_mistake else "shard-unavailable"
    assert reasons == {NotExecutedReason(expected)}
    assert commands.unsettled == 0


def test_there_is_room_for_so_many(service: ColumnTransfers, metrics: Metrics) -> None:
    submit(service)
    with pytest.raises(Overloaded):
        submit(service)
    assert totals(metrics) == {"withdrawn": 3}


def test_its_end_waits_for_columns(
    service: ColumnTransfers, shards: Here, commands: Commands
) -> None:
    submit(service)
    assert not commands.close(time.monotonic())
    with pytest.raises(Closed):
        submit(service)
    shards.group.columns[0].set_result(decided())
    assert commands.close(time.monotonic() + 5)


def test_tickets_are_open_when_nothing_was_sent(
    service: ColumnTransfers, shards: Here, commands: Commands
) -> None:
    shards.group.refuses = ShardUnavailable(SHARD, "no connection")
    batch = submit(service)
    assert not may_happen(commands, batch.packed.id(0))
    wait_until(lambda: len(shards.noted) > 1, 5, "it was not tried again")
    commands.withdraw(batch.tickets.values())
    assert {ticket.state for ticket in batch.tickets.values()} == {State.DONE}
