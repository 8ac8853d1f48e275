"""Shows how each ledger group is: asks its node and its read side, and sets their gauges."""

import time
from typing import TYPE_CHECKING, NamedTuple

from coordinator.shards.registry import NoShardMap, Shards
from coordinator.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from coordinator.shards.group.node import LedgerGroup, Observed
    from eventstore.wire.questions import Description, LagIs

# An answer that it took longer to get is old: this process was frozen, and others know better.
_OLD_S = 10.0
# How far the marks of `Growth` are apart.
_STEP = 100_000


class Growth:
    """How many transfers a list had at each of its frames, about: between what was seen of it, it
    is taken to have grown evenly.
    """

    def __init__(self) -> None:
        # Frames, and how many transfers there were, rising.
        self._marks = [(0, 0)]

    def see(self, seq: int, transfers: int) -> None:
        """At frame `seq` there are so many transfers."""
        last_seq, last = self._marks[-1]
        if seq < last_seq:
            # It was set back, or is another group's.
            self._marks = [(0, 0)]
        elif seq > last_seq and transfers >= last + _STEP:
            self._marks.append((seq, transfers))

    def since(self, seq: int, now_seq: int, now: int) -> int:
        """How many have come behind frame `seq`, if there are `now` at `now_seq`. What was before
        that frame is forgotten.
        """
        while len(self._marks) > 1 and self._marks[1][0] <= seq:
            del self._marks[0]
        (seq_before, before), *later = self._marks
        seq_after, after = later[0] if later else (now_seq, now)
        if seq_after <= seq_before:
            return 0
        share = (min(seq, seq_after) - seq_before) / (seq_after - seq_before)
        return max(now - before - round(share * (after - before)), 0)


class Behind(NamedTuple):
    """How far the read side is behind a node's list: frames, and seconds by the frames' times; and
    how much older its last snapshot is than the list's last frame, -1 if there is none.
    """

    frames: int
    seconds: float
    snapshot_age_s: float


def behind(node: "Description", reads: "LagIs") -> Behind:
    """By what the node has said, and then the read side."""
    last, seen, snapshot = node.answerable, reads.as_of, reads.snapshot
    return Behind(
        max(last.seq - seen.seq, 0),
        max(last.time_us - seen.time_us, 0) / 1e6,
        max(last.time_us - snapshot.time_us, 0) / 1e6 if snapshot.seq else -1.0,
    )


class LedgerGauges:
    """See the module. What cannot be asked leaves its gauges as they were."""

    def __init__(self, shards: Shards, metrics: Metrics) -> None:
        self._shards = shards
        self._metrics = metrics
        self._growth: dict[str, Growth] = {}

    def look(self) -> None:
        """Look at each group, one after the other; one that is frozen takes its time limits."""
        for group in self._groups():
            began = time.monotonic()
            observed = group.observe()
            if time.monotonic() - began < _OLD_S:
                self._show(group.id, observed)

    def _groups(self) -> "list[LedgerGroup]":
        try:
            if not self._shards.map.has_groups:
                return []
        except NoShardMap:
            return []
        # Takes an extra that others need not have.
        from coordinator.shards.group.node import LedgerGroup

        return [shard for shard in self._shards.all() if isinstance(shard, LedgerGroup)]

    def _show(self, shard: str, observed: "Observed") -> None:
        metrics, (node, reads) = self._metrics, observed
        metrics.ledger_reads_up.labels(shard).set(reads is not None)
        if node:
            self._show_node(shard, node)
        if reads:
            metrics.ledger_entries.labels(shard).set(reads.entries)
        if node and reads:
            found = behind(node, reads)
            metrics.ledger_lag_frames.labels(shard).set(found.frames)
            metrics.ledger_lag_seconds.labels(shard).set(found.seconds)
            metrics.ledger_snapshot_age.labels(shard).set(found.snapshot_age_s)
            self._show_replay(shard, node, reads)

    def _show_node(self, shard: str, node: "Description") -> None:
        metrics = self._metrics
        for gauge, value in (
            (metrics.ledger_answerable, node.answerable.seq),
            (metrics.ledger_frames, node.frames),
            (metrics.ledger_commands, node.commands),
            (metrics.ledger_flushes, node.flushes),
            (metrics.ledger_flush_seconds, node.flush_seconds),
            (metrics.ledger_list_bytes, node.list_bytes),
            (metrics.ledger_room, node.room_bytes),
            (metrics.ledger_room_min, node.room_bytes_min),
            (metrics.ledger_accounts, node.accounts),
            (metrics.ledger_transfers, node.transfers),
        ):
            gauge.labels(shard).set(value)

    def _show_replay(self, shard: str, node: "Description", reads: "LagIs") -> None:
        growth, last = self._growth.setdefault(shard, Growth()), node.answerable.seq
        growth.see(last, node.transfers)
        replayed = growth.since(reads.snapshot.seq, last, node.transfers)
        self._metrics.ledger_replay.labels(shard).set(replayed)
