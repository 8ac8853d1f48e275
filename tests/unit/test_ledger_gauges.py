"""How a ledger group's gauges follow from what its node and its read side say."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.operations.gauges import Gauges
from coordinator.operations.ledger_gauges import Growth, LedgerGauges, behind
from coordinator.settings import Settings
from coordinator.shards.group.node import LedgerGroup
from coordinator.telemetry.metrics import Metrics
from eventstore.wire.questions import At, Describe, Description, Lag, LagIs
from shard_client.errors import ShardUnavailable, TimedOut
from shard_client.shard_map import ShardAddress, ShardMap
from tests.memory_shard import MemoryShard

ADDRESS = ShardAddress.parse("ledger://127.0.0.1:9700")
NODE = Description(
    version="1",
    epoch=3,
    answerable=At(500, 90_000_000),
    time_us=90_000_500,
    accounts=40,
    transfers=7000,
    frames=450,
    commands=8000,
    flush_seconds=1.5,
    flushes=400,
    list_bytes=1 << 20,
    room_bytes=3 << 30,
    room_bytes_min=1 << 30,
)
READS = LagIs(
    as_of=At(490, 88_500_000),
    answerable=At(495, 89_000_000),
    entries=13_000,
    kept_bytes=1 << 19,
    snapshot=At(250, 30_000_000),
)


class Answers:
    """Stands for a Link: gives these answers, or raises them."""

    def __init__(self, node: object, reads: object) -> None:
        self.said = {Describe: node, Lag: reads}

    def ask_node(self, question: object, kind: type, deadline: float) -> Any:
        assert deadline > time.monotonic()
        found = self.said[type(question)]
        if isinstance(found, Exception):
            raise found
        return found

    ask_reads = ask_node


def group(node: object, reads: object) -> LedgerGroup:
    made = LedgerGroup("s1", ADDRESS, "tests", "secret", 1.0)
    made._link = Answers(node, reads)
    return made


def shards_of(*shards: object, address: ShardAddress = ADDRESS) -> Any:
    map_ = ShardMap.evenly(1, {"s1": address})
    return SimpleNamespace(map=map_, all=lambda: list(shards))


def shown(metrics: Metrics) -> dict[str, float]:
    """What a scrape says of ledger groups."""
    begin = "coordinator_ledger_"
    lines = metrics.exposition("")[0].decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line.startswith(begin))
    return {
        name.removeprefix(begin).removesuffix('{shard="s1"}'): float(value)
        for name, _, value in pairs
    }


def test_gauges_say_what_node_and_read_side_say() -> None:
    metrics = Metrics()
    LedgerGauges(shards_of(group(NODE, READS)), metrics).look()
    assert shown(metrics) == {
        "answerable_seq": 500,
        "frames": 450,
        "commands": 8000,
        "flushes": 400,
        "flush_seconds": 1.5,
        "list_bytes": 1 << 20,
        "room_bytes": 3 << 30,
        "room_bytes_min": 1 << 30,
        "accounts": 40,
        "transfers": 7000,
        "reads_up": 1,
        "reads_lag_frames": 10,
        "reads_lag_seconds": 1.5,
        "reads_entries": 13_000,
        "snapshot_age_seconds": 60,
        "replay_transfers": 3500,
    }


def test_without_a_read_side_what_it_says_stays_as_it_was() -> None:
    metrics = Metrics()
    one = group(NODE, READS)
    gauges = LedgerGauges(shards_of(one), metrics)
    gauges.look()
    before = shown(metrics)
    later = At(600, 99_000_000)
    one._link.said |= {
        Describe: Description(**{**fields(NODE), "answerable": later}),
        Lag: TimedOut("s1", "its read side: no answer in time"),
    }
    gauges.look()
    assert shown(metrics) == before | {"answerable_seq": 600, "reads_up": 0}
    assert one.lag is None


def test_without_a_node_what_it_says_stays_as_it_was() -> None:
    metrics = Metrics()
    one = group(ShardUnavailable("s1", "there is no connection to its node"), READS)
    LedgerGauges(shards_of(one), metrics).look()
    assert shown(metrics) == {"reads_up": 1, "reads_entries": 13_000}
    assert one.lag == READS
    # Whether it can be used is for its checks to say.
    assert one.description is None


def test_other_shards_have_none() -> None:
    metrics = Metrics()
    server = ShardAddress.parse("127.0.0.1:3306/tandem")
    shard = MemoryShard("s1", "tests", slots=frozenset(), lock_wait_s=0.05)
    LedgerGauges(shards_of(shard, address=server), metrics).look()
    assert shown(metrics) == {}


def test_answers_of_a_process_that_was_frozen_are_not_shown(monkeypatch) -> None:
    metrics = Metrics()
    one = group(NODE, READS)
    clock = iter((100.0, 160.0))
    monkeypatch.setattr(
        "coordinator.operations.ledger_gauges.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    LedgerGauges(shards_of(one), metrics).look()
    assert shown(metrics) == {}


@pytest.mark.parametrize(
    ("seen", "snapshot", "expected"),
    [
        (At(500, 90_000_000), At(0, 0), (0, 0.0, -1.0)),
        # It was asked later, and had seen more by then.
        (At(503, 90_200_000), At(501, 90_100_000), (0, 0.0, 0.0)),
        (At(499, 89_999_999), At(500, 90_000_000), (1, 1e-6, 0.0)),
    ],
)
def test_how_far_behind(seen: At, snapshot: At, expected: tuple[float, ...]) -> None:
    reads = LagIs(**{**fields(READS), "as_of": seen, "snapshot": snapshot})
    assert behind(NODE, reads) == expected


def fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


# --- what a start would replay ------------------------------------------------------------------


def test_a_list_that_is_first_seen_is_taken_to_have_grown_evenly() -> None:
    growth = Growth()
    growth.see(1000, 5_000_000)
    assert growth.since(0, 1000, 5_000_000) == 5_000_000
    assert growth.since(400, 1000, 5_000_000) == 3_000_000
    assert growth.since(1000, 1000, 5_000_000) == 0


def test_what_was_seen_of_a_list_counts() -> None:
    growth = Growth()
    # Slow so far; then many transfers in few frames.
    growth.see(1000, 200_000)
    growth.see(1100, 10_200_000)
    growth.see(1101, 10_200_001)
    assert growth.since(1000, 1101, 10_200_001) == 10_000_001
    assert growth.since(1050, 1101, 10_200_001) == 5_000_001
    assert growth.since(1101, 1101, 10_200_001) == 0


def test_a_list_that_was_set_back_is_another() -> None:
    growth = Growth()
    growth.see(1000, 5_000_000)
    growth.see(10, 300_000)
    assert growth.since(5, 10, 300_000) == 150_000


@pytest.mark.parametrize("snapshot", [0, 30])
def test_marks_stay_few(snapshot: int) -> None:
    growth = Growth()
    for seq in range(1, 1001):
        growth.see(seq, seq * 10_000)
        growth.since(snapshot and max(seq - snapshot, 0), seq, seq * 10_000)
    assert len(growth._marks) <= (101 if not snapshot else 5)
    assert growth.since(900, 1000, 10_000_000) == 1_000_000


# --- a group that does not answer ---------------------------------------------------------------


@contextmanager
def gauges_beside(frozen: LedgerGroup, metrics: Metrics, looks: threading.Semaphore) -> Iterator:
    """All gauges of a process, whose other parts are there in outline."""

    def looked() -> list[object]:
        looks.release()
        return []

    parts = SimpleNamespace
    cluster = parts(
        leads=False,
        view=parts(leader=None),
        epoch=1,
        is_connected=True,
        map=parts(current=ShardMap.evenly(1, {"s1": ADDRESS})),
    )
    gauges = Gauges(
        Settings(),
        0,
        metrics,
        cluster=cluster,
        shards=shards_of(frozen),
        queue=parts(waiting=0, callers=0, stuck=(0, 0)),
        commands=parts(unsettled=0, callers=0),
        branch_resolver=parts(pool=parts(unfinished=looked)),
        in_doubt_scanner=parts(last_success=None, in_doubt={}, unfinished={}),
    )
    gauges.start()
    try:
        yield
    finally:
        gauges.stop()


def test_a_frozen_group_holds_up_no_other_gauge(monkeypatch) -> None:
    monkeypatch.setattr("coordinator.operations.gauges._INTERVAL_S", 0.01)
    metrics, asked, thaw = Metrics(), threading.Event(), threading.Event()
    looks = threading.Semaphore(0)
    frozen = group(NODE, READS)
    frozen.unavailable_because = None

    def never(question: object, kind: type, deadline: float) -> Any:
        asked.set()
        thaw.wait(30)
        raise TimedOut("s1", "no answer in time")

    frozen._link.ask_node = never
    with gauges_beside(frozen, metrics, looks):
        try:
            assert asked.wait(10)
            while looks.acquire(blocking=False):
                pass
            # The others go on while it is being asked.
            for _ in range(10):
                assert looks.acquire(timeout=10)
            assert shown(metrics) == {}
            text = metrics.exposition("")[0].decode()
            assert 'coordinator_shard_kind{kind="ledger",shard="s1"} 1.0' in text
            assert 'coordinator_shard_up{shard="s1"} 1.0' in text
        finally:
            thaw.set()
