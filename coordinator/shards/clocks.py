"""Whose clock is wrong, this machine's or a shard's: most of the clocks are right."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from shard_client.errors import ShardError, ShardUnavailable
from shard_client.node import ShardNode
from shard_client.records import STAMP_AHEAD_MAX_US

log = logging.getLogger(__name__)

# Clocks that differ by more are not looked after.
SKEW_MAX_S = 5.0
# How often clocks are compared, as they were read last; how soon they are read again while they
# differ; and how often it is told that stamps were refused.
_INTERVAL_S = 0.5
_READ_INTERVAL_S = 5.0
_TELL_INTERVAL_S = 1.0


class Verdict(NamedTuple):
    """What is wrong with this machine's clock, and with those of shards; None and {} is nothing."""

    ours: str | None
    theirs: dict[str, str]


_ALL_RIGHT = Verdict(None, {})


def judge(skews: Mapping[str, float]) -> Verdict:
    """Compare this machine's clock with those of the shards, each so many seconds ahead of it.

    Where no side has most clocks behind it, this machine's is said to be in doubt, and none of the
    shards is taken away for it.
    """
    if all(abs(skew) <= SKEW_MAX_S for skew in skews.values()):
        return _ALL_RIGHT
    clocks = [0.0, *skews.values()]
    sides = [[other for other in clocks if abs(other - one) <= SKEW_MAX_S] for one in clocks]
    most = max(sides, key=len)
    rivals = [side for side in sides if len(side) == len(most) and set(side).isdisjoint(most)]
    if rivals:
        told = ", ".join(
            f"that of shard {s} is {_by(skew)} this machine's" for s, skew in skews.items()
        )
        return Verdict(
            f"clocks differ, and which is right is not known: {told}; set all by NTP", {}
        )
    right = most[len(most) // 2]
    theirs = {
        shard: f"its clock is {_by(skew - right)} most others; set it by NTP"
        for shard, skew in skews.items()
        if skew not in most
    }
    if 0.0 in most:
        return Verdict(None, theirs)
    agreeing = ", ".join(shard for shard, skew in skews.items() if skew in most)
    ours = f"this machine's clock is {_by(-right)} those of shards {agreeing}, which agree"
    return Verdict(f"{ours}; set it by NTP", theirs)


def _by(skew: float) -> str:
    where = "ahead of" if skew > 0 else "behind"
    return f"{abs(skew):.1f} s {where}"


class ClockWatch:
    """Compares the clocks of the shards in use with this machine's, in a thread of its own. A shard
    whose clock is wrong is used no more; what is wrong with this machine's is its `trouble`.

    A shard's clock is known by how much it shows more than the monotonic one: a jump of this
    machine's is seen without asking anybody.
    """

    def __init__(self, shards: Callable[[], list[ShardNode]]) -> None:
        self._shards = shards
        self.trouble: str | None = None
        self._wake = threading.Event()
        self._is_stopping = False
        self._read_at = self._told_at = 0.0
        self._thread = threading.Thread(target=self._work, name="clock-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping = True
        self._wake.set()

    def problem_of(self, shard: str, offset_s: float) -> str | None:
        """What is wrong with the clock of a shard that is not in use yet."""
        return self._judge({shard: offset_s}).theirs.get(shard)

    def latest(self, shard: str) -> int:
        """The latest stamp that a shard takes, by its clock as it was read last."""
        offsets = [s.clock_offset_s for s in self._shards() if s.id == shard]
        known = [offset_s for offset_s in offsets if offset_s is not None]
        return round((max(known, default=0.0) + time.monotonic()) * 1e6) + STAMP_AHEAD_MAX_US

    def refused(self, why: str) -> None:
        """Something was not stamped because a clock is, or was, ahead: tell, and look at clocks."""
        now = time.monotonic()
        if now - self._told_at < _TELL_INTERVAL_S:
            return
        self._told_at = now
        log.error("nothing is stamped by a wrong clock: %s", why, extra={"event": "clock.ahead"})
        self._read_at = min(self._read_at, now - _READ_INTERVAL_S)
        self._wake.set()

    def _judge(self, new: Mapping[str, float]) -> Verdict:
        ours_s = time.time() - time.monotonic()
        known = {s.id: s.clock_offset_s for s in self._shards() if s.is_available}
        offsets = {**known, **new}
        return judge({s: offset - ours_s for s, offset in offsets.items() if offset is not None})

    def _work(self) -> None:
        while not self._is_stopping:
            was_woken = self._wake.wait(_INTERVAL_S)
            self._wake.clear()
            try:
                self._look(was_woken)
            except Exception:
                extra = {"event": "shard.bug"}
                log.exception("the watch over clocks met a bug and goes on", extra=extra)

    def _look(self, is_asked: bool) -> None:
        verdict = self._judge({})
        is_due = time.monotonic() - self._read_at >= _READ_INTERVAL_S
        if is_due and (is_asked or verdict != _ALL_RIGHT):
            # This machine may have slept since, or a shard's clock may have been set.
            self._read_all()
            verdict = self._judge({})
        for shard in self._shards():
            if why := verdict.theirs.get(shard.id):
                shard.give_up(ShardUnavailable(shard.id, why))
        if verdict.ours and not self.trouble:
            log.error("%s", verdict.ours, extra={"event": "clock.wrong"})
        self.trouble = verdict.ours

    def _read_all(self) -> None:
        self._read_at = time.monotonic()
        shards = [shard for shard in self._shards() if shard.is_available]
        if shards:
            with ThreadPoolExecutor(len(shards)) as pool:
                list(pool.map(_read, shards))


def _read(shard: ShardNode) -> None:
    try:
        shard.read_clock()
    except ShardError as error:
        extra = {"event": "shard.clock_not_read", "shard": shard.id, "code": error.code}
        log.debug("%s", error, extra=extra)
