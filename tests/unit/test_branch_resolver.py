"""What the resolver knows of groups: joining, telling, and letting go. No shard is asked."""

import time

from coordinator.protocols.two_phase_commit import Phase
from coordinator.recovery.branches import BranchResolver, Unfinished
from coordinator.settings import Settings
from coordinator.shards.registry import Shards
from coordinator.telemetry.metrics import Metrics
from coordinator.telemetry.tracing import Tracer
from shard_client.records import DecisionOutcome
from shard_client.xid import Gtrid

GTRID = Gtrid("tandem", "s1", "c1", 1, 2)


def resolver() -> BranchResolver:
    """Not started: nobody takes anything from it."""
    return BranchResolver(Shards(Settings()), Metrics(), Tracer())


def test_one_that_joins_brings_its_shards_and_its_callback() -> None:
    made, heard = resolver(), list[DecisionOutcome]()
    made.add(Unfinished(GTRID, ["s2"], Phase.ARBITRATING))
    made.add(Unfinished(GTRID, ["s3"], Phase.ARBITRATING, heard.append))
    (item,) = made.pool.unfinished()
    assert sorted(item.branches) == ["s2", "s3"]
    assert heard == []


def test_one_that_joins_a_settled_group_is_told_at_once_and_once() -> None:
    made, heard = resolver(), list[DecisionOutcome]()
    made.add(Unfinished(GTRID, ["s2"], Phase.COMMITTING))
    for _ in range(2):
        made.add(Unfinished(GTRID, ["s2"], Phase.ARBITRATING, heard.append))
    assert heard == [DecisionOutcome.COMMITTED] * 2
    (item,) = made.pool.unfinished()
    assert item.callbacks == []


def test_a_missing_branch_that_is_seen_again_is_taken_up_again() -> None:
    made = resolver()
    made.add(Unfinished(GTRID, ["s2"], Phase.COMMITTING))
    (item,) = made.pool.unfinished()
    item.branches["s2"].missing = 3
    assert item.is_stuck
    made.add(Unfinished(GTRID, ["s2"], Phase.ARBITRATING))
    assert not item.is_stuck
    assert made.pool.unfinished() == [item]


def test_a_finished_group_does_not_take_its_namesake_along() -> None:
    """While a thread still holds the first one, another one came under the same name."""
    made, heard = resolver(), list[DecisionOutcome]()
    first = Unfinished(GTRID, [], Phase.COMMITTING)
    made.add(first)
    made._drop_done([first])
    second = Unfinished(GTRID, ["s2"], Phase.ARBITRATING, heard.append)
    made.add(second)
    made._drop_done([first])
    assert made.pool.unfinished() == [second]


def test_home_is_asked_first_and_a_suspect_is_tried_last_and_by_itself() -> None:
    made = resolver()
    groups = [GTRID._replace(time_ms=number) for number in range(4)]
    made.add(*(Unfinished(gtrid, ["s1"], Phase.COMMITTING) for gtrid in groups[:3]))
    made.add(Unfinished(groups[3], ["s1"], Phase.ARBITRATING))
    made.pool.unfinished()[0].branches["s1"].alone = True
    portions = [made.pool.take(time.monotonic())[0] for _ in range(4)]
    taken = [[task.item.gtrid for task in portion.tasks] for portion in portions if portion]
    assert taken == [[groups[3]], groups[1:3], [groups[0]]]
