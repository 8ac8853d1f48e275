"""What is answered to a key that was seen before, and what waits, when a shard is asked again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from coordinator.engine.known import answer_known, known_answer
from coordinator.engine.tickets import NotExecuted, NotExecutedReason, Refused, Settled, Ticket
from coordinator.shards.registry import Shards
from ledger.model import Reason
from shard_client.calls import MySqlCalls
from shard_client.connection import Result
from shard_client.errors import ShardError, ShardUnavailable
from shard_client.records import PENDING, StoredTransfer
from shard_client.statements import TOUCH
from tests.unit.tickets import queue, ticket

AWAY = ShardUnavailable("s1", "it does not answer")


class FakeShard:
    """A shard, and its one session: it has these outcomes, or fails when it reads or writes."""

    is_mariadb = False

    def __init__(self, *rows: StoredTransfer, is_durable_before_visible: bool = True) -> None:
        self.rows = list(rows)
        self.is_durable_before_visible = is_durable_before_visible
        self.recovery = MySqlCalls("tests", self._session)
        self.fails_to_read = self.fails_to_write = False
        self.asked: list[str] = []
        self.noted: list[ShardError] = []

    @contextmanager
    def _session(self, deadline: float) -> Iterator["FakeShard"]:
        try:
            yield self
        except ShardError as error:
            self.noted.append(error)
            raise

    def query(self, statements: list[str], deadline: float) -> list[Result]:
        self.asked += statements
        is_write = statements == [TOUCH]
        if self.fails_to_write if is_write else self.fails_to_read:
            raise AWAY
        rows = tuple((json.dumps([*row.transfer[:9], *row[1:]]),) for row in self.rows)
        return [Result(rows, len(rows))] * len(statements)


class FakeShards(dict[str, FakeShard]):
    def __init__(self, **shards: FakeShard) -> None:
        super().__init__(shards)

    @property
    def noted(self) -> list[ShardError]:
        return [error for shard in self.values() for error in shard.noted]


def asked(key: str, source: str = "1a") -> Ticket:
    made = ticket(source, "2b", id_=key)
    made.shards = (f"s{source[0]}", "s2")
    return made


def outcome(of: Ticket, *, gtrid: str = "before", status: str = "committed") -> StoredTransfer:
    return StoredTransfer(of.transfer, gtrid, status, None, None, 7)


def other_body(stored: StoredTransfer) -> StoredTransfer:
    return stored._replace(transfer=stored.transfer._replace(amount=2))


def waiting(shards: FakeShards, *known: tuple[Ticket, StoredTransfer]) -> list[Ticket]:
    """Answer what can be; gives what waits."""
    q = queue()
    q.put([one for one, _ in known])
    return answer_known(q, cast(Shards, shards), known, lambda: 0.0)


def test_an_outcome_that_is_found_again_is_answered() -> None:
    one = asked("k")
    shard = FakeShard(outcome(one))
    assert waiting(FakeShards(s1=shard), (one, outcome(one))) == []
    assert one.answer == Settled(outcome(one), is_replay=True)
    assert TOUCH not in shard.asked


def test_where_a_commit_is_seen_before_it_is_safe_the_reader_writes() -> None:
    one = asked("k")
    shard = FakeShard(outcome(one), is_durable_before_visible=False)
    assert waiting(FakeShards(s1=shard), (one, outcome(one))) == []
    assert isinstance(one.answer, Settled)
    assert shard.asked[-1] == TOUCH


def test_an_outcome_that_no_write_has_proven_waits() -> None:
    one = asked("k")
    shard = FakeShard(outcome(one), is_durable_before_visible=False)
    shard.fails_to_write = True
    shards = FakeShards(s1=shard)
    assert waiting(shards, (one, outcome(one))) == [one]
    assert one.answer is None
    assert shards.noted == [AWAY]


def test_what_a_shard_cannot_show_again_waits_and_the_shard_is_noted() -> None:
    one, elsewhere, pending = asked("k"), asked("k2", "2a"), asked("k3")
    away, there = FakeShard(outcome(one)), FakeShard(outcome(elsewhere))
    away.fails_to_read = True
    shards = FakeShards(s1=away, s2=there)
    open_ = other_body(outcome(pending, status=PENDING))
    known = [(one, outcome(one)), (elsewhere, outcome(elsewhere)), (pending, open_)]
    assert waiting(shards, *known) == [one, pending]
    assert isinstance(elsewhere.answer, Settled)
    assert shards.noted == [AWAY]


def test_a_shard_that_has_lost_one_outcome_is_believed_nothing() -> None:
    """It was seen, and then the server came back without it."""
    lost, kept = asked("lost"), asked("kept")
    shards = FakeShards(s1=FakeShard(outcome(kept)))
    assert waiting(shards, (lost, outcome(lost)), (kept, outcome(kept))) == [lost, kept]
    assert shards.noted == []


def test_an_outcome_that_is_another_one_now_waits() -> None:
    one = asked("k")
    shards = FakeShards(s1=FakeShard(outcome(one, gtrid="another")))
    assert waiting(shards, (one, outcome(one))) == [one]


def test_what_is_pending_with_another_body_needs_no_proof() -> None:
    one = asked("k")
    shard = FakeShard()
    known = other_body(outcome(one, status=PENDING))
    assert waiting(FakeShards(s1=shard), (one, known)) == []
    assert isinstance(one.answer, NotExecuted)
    assert one.answer.reason is NotExecutedReason.KEY_IN_USE
    assert shard.asked == []


def test_an_outcome_of_its_own_group_is_no_replay() -> None:
    one = asked("k")
    one.gtrid = "mine"
    stored = outcome(one, gtrid="mine")
    assert waiting(FakeShards(s1=FakeShard(stored)), (one, stored)) == []
    assert one.answer == Settled(stored, is_replay=False)


def test_another_body_is_refused_once_the_outcome_of_the_first_is_proven() -> None:
    one = asked("k")
    stored = other_body(outcome(one))
    assert waiting(FakeShards(s1=FakeShard()), (one, stored)) == [one]
    assert waiting(FakeShards(s1=FakeShard(stored)), (one, stored)) == []
    assert isinstance(one.answer, Refused)
    assert one.answer.refusal.reason is Reason.IDEMPOTENCY_KEY_REUSED
    assert known_answer(one.asked, stored, is_replay=True) == one.answer
