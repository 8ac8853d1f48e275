"""Finishes what is in doubt: groups whose coordinator lost sight of them, or died.

The finisher walks the same table as the executor, from ARBITRATING, COMMITTING or ABORTING on, and
tries for ever, with growing pauses. The sweeper finds branches that an earlier life of this
coordinator has left behind, and gives them to the finisher.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from coordinator.protocols.two_phase_commit import Event, Phase, step
from coordinator.shards import Shards
from shard_client.errors import ShardError, UnknownBranch
from shard_client.prepared import (
    DecisionOutcome,
    Look,
    PreparedBranch,
    arbitrate,
    finish,
    list_prepared,
    look,
    read_decision,
)
from shard_client.xid import Gtrid

log = logging.getLogger(__name__)

_PAUSE_MIN_S = 0.05
_PAUSE_MAX_S = 5.0
_CALL_TIMEOUT_S = 3.0
# So often must a branch that home says is committed be nowhere before it is called missing.
_MISSING_MAX = 3

_OUTCOME = {
    Phase.COMMITTING: DecisionOutcome.COMMITTED,
    Phase.ABORTING: DecisionOutcome.ABORTED,
}
_FOUND = {
    DecisionOutcome.COMMITTED: Event.FOUND_COMMITTED,
    DecisionOutcome.ABORTED: Event.FOUND_ABORTED,
}


class Unfinished:
    """A group with branches to finish; `on_settled` is told its outcome, once it is known."""

    def __init__(
        self,
        gtrid: Gtrid,
        shards: Iterable[str],
        phase: Phase,
        on_settled: Callable[[DecisionOutcome], None] | None = None,
    ) -> None:
        self.gtrid = gtrid
        self.shards = set(shards)
        self.phase = phase
        # Who is to be told the outcome, each once.
        self.callbacks = [on_settled] if on_settled else []
        self.attempts = 0
        self.not_before = 0.0
        self.missing: dict[str, int] = defaultdict(int)
        self.last_error: str | None = None

    @property
    def is_stuck(self) -> bool:
        """A committed branch is nowhere to be found: a person must look (rule R6)."""
        return any(count >= _MISSING_MAX for count in self.missing.values())


class Finisher:
    """Finishes groups in the background until nothing is left of them."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._items: dict[Gtrid, Unfinished] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="finisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout=2 * _CALL_TIMEOUT_S)

    def add(self, item: Unfinished) -> None:
        """Take a group to finish; one that is here already gets further shards and callbacks."""
        with self._changed:
            known = self._items.setdefault(item.gtrid, item)
            if known is not item:
                known.shards |= item.shards
                known.callbacks += item.callbacks
            self._changed.notify_all()

    def unfinished(self) -> list[Unfinished]:
        with self._changed:
            return list(self._items.values())

    def wait_for(self, done: Callable[[list[Unfinished]], bool], deadline: float) -> bool:
        """Wait until `done` says yes to what is unfinished, or the deadline."""
        with self._changed:
            return self._changed.wait_for(
                lambda: done(list(self._items.values())), max(deadline - time.monotonic(), 0)
            )

    def _work(self) -> None:
        while item := self._next():
            try:
                is_done = self._advance(item)
            except ShardError as error:
                self._shards.note(error)
                item.last_error = str(error)
                is_done = False
            except Exception:
                log.exception("finishing %s met a bug; it is tried again", item.gtrid)
                is_done = False
            with self._changed:
                # Somebody may have joined it meanwhile.
                if is_done and not item.shards and not item.callbacks:
                    del self._items[item.gtrid]
                else:
                    pause = min(_PAUSE_MIN_S * 2 ** min(item.attempts, 16), _PAUSE_MAX_S)
                    item.attempts += 1
                    item.not_before = time.monotonic() + pause
                self._changed.notify_all()

    def _next(self) -> Unfinished | None:
        """Wait for a group whose time has come; None when the finisher stops."""
        with self._changed:
            while not self._stopping:
                item = min(
                    (item for item in self._items.values() if not item.is_stuck),
                    key=lambda item: item.not_before,
                    default=None,
                )
                wait = item.not_before - time.monotonic() if item else None
                if item and wait is not None and wait <= 0:
                    return item
                self._changed.wait(wait)
        return None

    def _advance(self, item: Unfinished) -> bool:
        """Take a group as far as it goes now; says whether nothing is left of it."""
        if item.phase is Phase.ARBITRATING:
            home = self._shards[item.gtrid.home]
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            with home.connection(deadline) as connection:
                now = time.time_ns() // 1000
                outcome = arbitrate(connection, str(item.gtrid), now, deadline)
            item.phase, _ = step(item.phase, _FOUND[outcome])
            log.info("group %s: home says %s", item.gtrid, outcome.value)
        self._tell(item)
        first_error: ShardError | None = None
        for shard in sorted(item.shards):
            try:
                if self._finish(item, shard):
                    item.shards.discard(shard)
            except ShardError as error:
                first_error = first_error or error
        if first_error:
            raise first_error
        return not item.shards and not item.callbacks

    def _tell(self, item: Unfinished) -> None:
        """Tell the outcome to those who wait for it."""
        while item.callbacks:
            item.callbacks[0](_OUTCOME[item.phase])
            item.callbacks.pop(0)

    def _finish(self, item: Unfinished, shard: str) -> bool:
        """Finish one branch; says whether it is finished. Raises ShardError."""
        outcome = _OUTCOME[item.phase]
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        try:
            with self._shards[shard].connection(deadline) as connection:
                finish(connection, str(item.gtrid), outcome, deadline)
                return True
        except UnknownBranch:
            return self._find_out(item, shard)

    def _find_out(self, item: Unfinished, shard: str) -> bool:
        """Why a branch is unknown to its server; says whether it is finished (rule R6)."""
        deadline = time.monotonic() + _CALL_TIMEOUT_S
        with self._shards[shard].connection(deadline) as connection:
            found = look(connection, PreparedBranch(item.gtrid, shard), deadline)
        if found is Look.BUSY:
            return False
        if (found is Look.COMMITTED) == (item.phase is Phase.COMMITTING):
            return True
        if found is Look.ABSENT:
            with self._shards[item.gtrid.home].connection(deadline) as connection:
                if read_decision(connection, str(item.gtrid), deadline) is None:
                    # It was finished by somebody else, and its traces were collected.
                    return True
        item.missing[shard] += 1
        if item.is_stuck:
            log.critical(
                "group %s was %s, but its branch on shard %s is %s: atomicity is at risk, nothing "
                "more is done about it; see docs/operations/missing-branch.md",
                item.gtrid,
                _OUTCOME[item.phase].value,
                shard,
                found.value,
            )
        return False


class Sweeper:
    """Looks for prepared branches of this coordinator that nobody is at work on.

    Those named before `started_ms` are of an earlier life; younger ones are left alone for
    `grace_s`, since another process of this coordinator may still be at work on them. To be wrong
    about that costs a group another round, never its atomicity.
    """

    def __init__(
        self,
        shards: Shards,
        finisher: Finisher,
        *,
        cluster: str,
        coordinator: str,
        started_ms: int,
        interval_s: float,
        grace_s: float,
    ) -> None:
        self._shards = shards
        self._finisher = finisher
        self._cluster = cluster
        self._coordinator = coordinator
        self._started_ms = started_ms
        self._interval_s = interval_s
        self._grace_s = grace_s
        self._swept: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2 * _CALL_TIMEOUT_S)

    def sweep(self) -> None:
        """Look once at every shard that can be used."""
        found: dict[Gtrid, set[str]] = defaultdict(set)
        for shard in self._shards.all():
            if not shard.is_available:
                continue
            deadline = time.monotonic() + _CALL_TIMEOUT_S
            try:
                with shard.connection(deadline) as connection:
                    for branch in list_prepared(connection, self._cluster, deadline):
                        if self._is_left_behind(branch.gtrid):
                            found[branch.gtrid].add(branch.shard)
                self._swept.add(shard.id)
            except ShardError as error:
                self._shards.note(error)
        for gtrid, shards in found.items():
            self._finisher.add(Unfinished(gtrid, shards, Phase.ARBITRATING))

    def reasons_to_wait(self) -> list[str]:
        """Why what an earlier life left behind is not finished yet, as far as it can be; none when
        it is. What waits for a shard that is down is no reason.
        """
        reasons = [
            f"shard {shard.id} was not searched for unfinished groups yet"
            for shard in self._shards.all()
            if shard.is_available and shard.id not in self._swept
        ]
        for item in self._finisher.unfinished():
            needed = item.shards | {item.gtrid.home}
            is_past = item.gtrid.time_ms < self._started_ms and not item.is_stuck
            if is_past and all(self._shards.trouble_with(shard) is None for shard in needed):
                reasons.append(f"group {item.gtrid} of an earlier life is being finished")
        return reasons

    def _is_left_behind(self, gtrid: Gtrid) -> bool:
        if gtrid.coordinator != self._coordinator:
            return False
        age_s = time.time() - gtrid.time_ms / 1000
        return gtrid.time_ms < self._started_ms or age_s > self._grace_s

    def _work(self) -> None:
        while not self._stop.wait(self._interval_s):
            try:
                self.sweep()
            except Exception:
                log.exception("the sweep met a bug; it is repeated")
