"""What is said of a transfer's steps, from what its shards show."""

import pytest

from coordinator.operations.trace import Known, judge_decision, judge_part
from coordinator.operations.trace_values import Decision, Outcome, Stage
from ledger.model import Transfer
from shard_client.errors import ShardUnavailable
from shard_client.records import DecisionOutcome, Look, StoredTransfer
from shard_client.xid import Gtrid

AWAY = ShardUnavailable("s1", "cannot be reached")
COMMITTED, ABORTED = DecisionOutcome.COMMITTED, DecisionOutcome.ABORTED


@pytest.mark.parametrize(
    ("said", "is_settled", "crosses_shards", "decision"),
    [
        (AWAY, False, True, Decision.UNKNOWN),
        (AWAY, True, True, Decision.UNKNOWN),
        (COMMITTED, False, True, Decision.COMMITTED),
        (COMMITTED, True, False, Decision.COMMITTED),
        (None, False, True, Decision.NONE),
        (ABORTED, False, True, Decision.ABORTED),
        (None, True, True, Decision.COLLECTED),
        # Whoever asked after it was collected has left this; what is settled stands.
        (ABORTED, True, True, Decision.COLLECTED),
        # Within one shard there may never have been one.
        (None, True, False, Decision.NOT_KEPT),
    ],
)
def test_decision(
    said: DecisionOutcome | ShardUnavailable | None,
    is_settled: bool,
    crosses_shards: bool,
    decision: Decision,
) -> None:
    found = judge_decision(said, is_settled=is_settled, crosses_shards=crosses_shards)
    assert found is decision


GTRID = Gtrid("here", "s1", "c1", 1, 1)
TRANSFER = Transfer("0" * 36, "k", "a", "b", 5, "EUR", None, "xa", 1)
STORED = StoredTransfer(TRANSFER, str(GTRID), "committed", None, None, 1)
OPEN = Known(STORED, False, GTRID, None)
DECIDED = Known(STORED, False, GTRID, COMMITTED)
SETTLED = Known(STORED, True, GTRID, None)


@pytest.mark.parametrize(
    ("known", "outcome"),
    [
        (OPEN, Outcome.PENDING),
        (OPEN._replace(said=ABORTED), Outcome.PENDING),
        # It may have said "committed" before.
        (OPEN._replace(said=AWAY), Outcome.UNKNOWN),
        (DECIDED, Outcome.COMMITTED),
        (SETTLED, Outcome.COMMITTED),
        (SETTLED._replace(said=AWAY), Outcome.COMMITTED),
        (SETTLED._replace(stored=STORED._replace(status="rejected")), Outcome.REJECTED),
    ],
)
def test_outcome(known: Known, outcome: Outcome) -> None:
    assert known.outcome is outcome


@pytest.mark.parametrize(
    ("known", "shard", "seen", "is_prepared", "has_record", "stage"),
    [
        # It was finished between two looks.
        (OPEN, "s2", Look.COMMITTED, True, True, Stage.COMMITTED),
        (OPEN, "s2", Look.BUSY, True, False, Stage.PREPARED),
        (OPEN, "s2", Look.BUSY, True, True, Stage.PREPARED),
        (OPEN, "s2", Look.BUSY, False, False, Stage.WRITTEN),
        # The home has no marker: its undecided record is what can be seen.
        (OPEN, "s1", Look.ABSENT, False, True, Stage.WRITTEN),
        (OPEN, "s1", Look.ABSENT, False, False, Stage.NOTHING),
        (OPEN, "s2", Look.ABSENT, True, False, Stage.NOTHING),
        (DECIDED, "s1", Look.ABSENT, False, False, Stage.COMMITTED),
        (DECIDED, "s2", Look.BUSY, True, True, Stage.PREPARED),
        (SETTLED, "s2", Look.ABSENT, False, True, Stage.COMMITTED),
        (SETTLED, "s2", Look.ABSENT, False, False, Stage.NOTHING),
    ],
)
def test_part(
    known: Known, shard: str, seen: Look, is_prepared: bool, has_record: bool, stage: Stage
) -> None:
    assert judge_part(known, shard, seen, is_prepared, has_record)[0] is stage
