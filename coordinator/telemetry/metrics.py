"""What a coordinator counts and measures, for Prometheus. docs/metrics.md explains each.

The worker processes of a coordinator share a folder: each counts in files of its own, and whoever
is scraped adds them up. Nothing that moves money waits for that, and nothing of it can fail there.
"""

import bisect
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from coordinator.protocols.saga import SAGA
from coordinator.protocols.try_confirm_cancel import TCC
from coordinator.settings import SettingsError

log = logging.getLogger(__name__)

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "tandem-metrics-"
_LOCK, _HOLD = "lock", "hold"
_LOCK_TRIES, _LOCK_PAUSE_S = 20, 0.05
# Taken from the disk before it is used: a page that finds no room later would end the process.
# Histograms take some 30 KiB for each shard.
_FILE_BYTES, _HISTOGRAMS_BYTES = 1 << 20, 4 << 20

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LONG_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_COURSE_SECONDS = (*_SECONDS, 60.0, 300.0, 1800.0)
_CALL_SECONDS = (0.0005, *_SECONDS[:-2])
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)

PROTOCOLS = ("xa", "tcc", "saga")
PHASED = (TCC, SAGA)
OUTCOMES = ("committed", "rejected", "replayed", "withdrawn", "pending")
ROLES = ("home", "remote", "recovered", "visit")
Mode = Literal["livesum", "livemin", "livemax", "livemostrecent"]


class Totals(NamedTuple):
    """Sums over all workers of this coordinator since it was started.

    `outcomes` counts transfers by how they were answered; `lock_hold` gives for each role the
    bounds of its buckets, in seconds, and how many locks were held no longer than each.
    """

    outcomes: dict[str, float]
    lock_hold: dict[str, list[tuple[float, float]]]


class Metrics:
    """All metrics of one worker process. To be made after the fork, once in a process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        _reserve()
        # Transfers.
        self._transfers = self._counter(
            "transfers", "Transfers by how they were answered", "protocol", "outcome"
        )
        self._refusals = self._counter(
            "refusals", "Transfers that were refused or withdrawn, by reason", "reason"
        )
        self._transfer_seconds = self._histogram(
            "transfer_seconds", "From taking a transfer to its answer", "protocol"
        )
        self.deferred = self._counter(
            "deferred_transfers", "Times that a transfer went back to the queue"
        )
        # Groups.
        self._phases = self._histogram("phase_seconds", "Phases of groups", "phase")
        self.group_size = self._histogram("group_size", "Transfers in a group", buckets=_SIZES)
        self._holds = self._histogram(
            "lock_hold_seconds",
            "From the packet that takes a branch's locks to the answer that they are released",
            *("role", "shard"),
        )
        self._calls = self._histogram(
            "shard_call_seconds",
            "One packet to a shard and its answer",
            *("shard", "call"),
            buckets=_CALL_SECONDS,
        )
        self._errors = self._counter(
            "xa_errors", "Errors of shards in groups, by the server's number", "code", "phase"
        )
        self.conflicts = self._counter(
            "decision_conflicts", "Groups that recovery had aborted before their commit point"
        )
        self.stamps_refused = self._counter(
            "stamps_refused",
            "Transfers, and steps of TC/C or Saga, refused because a clock is, or was, ahead",
        )
        # Recovery.
        self.recovery_seconds = self._histogram(
            "recovery_seconds",
            "From a group's coming to recovery to its end",
            buckets=_LONG_SECONDS,
        )
        self._recovered = self._counter(
            "recovered_branches", "Branches that recovery has finished", "outcome"
        )
        self.collected = self._counter(
            "collected", "Decisions and markers that were collected", "kind"
        )
        self.in_doubt = self._gauge(
            "in_doubt_branches", "Prepared branches older than a second", "livemostrecent", "shard"
        )
        self.in_doubt_oldest = self._gauge(
            "in_doubt_oldest_seconds", "Age of the oldest of them", "livemostrecent", "shard"
        )
        # Try-Confirm/Cancel and Saga.
        self._phase_changes = self._counter(
            "phase_changes",
            "Transfers that have come to a phase of their protocol",
            *("protocol", "phase"),
        )
        self._course_seconds = self._histogram(
            "course_seconds",
            "From a transfer's first phase to its last",
            "protocol",
            buckets=_COURSE_SECONDS,
        )
        self.unfinished = self._gauge(
            "unfinished_transfers",
            "Transfers by TC/C or Saga begun more than a second ago and not finished",
            *("livemostrecent", "shard", "protocol", "phase"),
        )
        self.unfinished_oldest = self._gauge(
            "unfinished_oldest_seconds", "Age of the oldest of them", "livemostrecent", "shard"
        )
        self.missing = self._gauge(
            "missing_branches", "Committed branches that cannot be found", "livemax"
        )
        self.swept_at = self._gauge(
            "sweep_last_success_timestamp_seconds",
            "When every shard that can be used was last searched for prepared branches",
            "livemin",
        )
        # The cluster.
        self.is_leader = self._gauge("is_leader", "1 where a process leads", "livemax")
        self.epoch = self._gauge("leader_epoch", "The leader's term, as seen here", "livemax")
        self.elections = self._counter("elections", "Terms begun here")
        self.failover_seconds = self._histogram(
            "failover_seconds",
            "From the leader's seat being seen empty to this process leading",
            buckets=_LONG_SECONDS,
        )
        self.zookeeper = self._gauge(
            "zookeeper_connected", "1 if ZooKeeper answers every worker", "livemin"
        )
        self.map_version = self._gauge(
            "shard_map_version", "The oldest shard map in force in a worker", "livemin"
        )
        self.shard_up = self._gauge(
            "shard_up", "1 if every worker can use the shard", "livemin", "shard"
        )
        self.weak = self._gauge(
            "shard_weak_durability",
            "1 if the shard is used though it is less durable than required",
            *("livemax", "shard"),
        )
        self.shard_kind = self._gauge(
            "shard_kind", "Always 1, for what each shard is", "livemax", "shard", "kind"
        )
        # Ledger groups: what a node and its read side say, as the worker that asked last has it.
        self.ledger_answerable = self._ledger("answerable_seq", "The last frame that is answerable")
        self.ledger_frames = self._ledger("frames", "Frames that the node has made")
        self.ledger_commands = self._ledger("commands", "Commands in these frames")
        self.ledger_flushes = self._ledger("flushes", "Flushes of the list")
        self.ledger_flush_seconds = self._ledger("flush_seconds", "Time that these have taken")
        self.ledger_list_bytes = self._ledger("list_bytes", "Size of the list")
        self.ledger_room = self._ledger("room_bytes", "What is left on the node's disk")
        self.ledger_room_min = self._ledger("room_bytes_min", "What has to be left there")
        self.ledger_accounts = self._ledger("accounts", "Accounts")
        self.ledger_transfers = self._ledger("transfers", "Transfers that have an outcome")
        self.ledger_reads_up = self._ledger(
            "reads_up", "1 if the read side answers every worker", "livemin"
        )
        self.ledger_lag_frames = self._ledger(
            "reads_lag_frames", "Answerable frames that the read side has not seen"
        )
        self.ledger_lag_seconds = self._ledger(
            "reads_lag_seconds", "How much older than the last frame is the last one that it saw"
        )
        self.ledger_entries = self._ledger("reads_entries", "Entries that the read side keeps")
        self.ledger_snapshot_age = self._ledger(
            "snapshot_age_seconds", "The same for the last snapshot; -1 if there is none"
        )
        # Workers estimate it, and one that was started later knows less.
        self.ledger_replay = self._ledger(
            "replay_transfers", "Transfers behind the last snapshot, about", "livemax"
        )
        # The process.
        # Each worker has a queue, and refuses what is beyond it: the fullest one says how it is.
        self.queue_length = self._gauge(
            "queue_length", "Transfers that wait, in the worker where most of them wait", "livemax"
        )
        self.queue_limit = self._gauge(
            "queue_limit", "Transfers that may wait in a worker", "livemax"
        )
        self.callers = self._gauge(
            "callers", "Callers that have transfers without an answer", "livesum"
        )
        self.stuck_accounts = self._gauge(
            "stuck_accounts", "Accounts that others keep locked", "livesum"
        )
        self.stuck_transfers = self._gauge(
            "stuck_transfers", "Transfers that wait for these accounts", "livesum"
        )
        self.pool = self._gauge(
            "pool_connections", "Connections to shards", "livesum", "shard", "pool", "state"
        )
        self.pool_limit = self._gauge(
            "pool_limit", "Connections to shards that may be in use", "livesum", "shard", "pool"
        )
        self.workers = self._gauge("workers", "Worker processes that have started", "livesum")
        self.start_time = self._gauge(
            "start_time_seconds", "When the coordinator was started", "livemax"
        )
        self.info = self._gauge("info", "Always 1", "livemax", "version", "coordinator", "cluster")
        self._requests = self._counter(
            "http_requests", "Requests answered", "method", "route", "status"
        )
        self._request_seconds = self._histogram(
            "http_request_seconds", "From a request to its answer", "method", "route"
        )
        # By method, route and status: looking them up by their labels takes longer than counting.
        self._requested: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._begin_at_zero()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"coordinator_{name}", text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = _SECONDS
    ) -> Histogram:
        return Histogram(
            f"coordinator_{name}", text, labels, registry=self._registry, buckets=buckets
        )

    def _gauge(self, name: str, text: str, mode: Mode, *labels: str) -> Gauge:
        return Gauge(
            f"coordinator_{name}",
            text,
            labels,
            registry=self._registry,
            multiprocess_mode=mode,
        )

    def _ledger(self, name: str, text: str, mode: Mode = "livemostrecent") -> Gauge:
        # What a node counts is no counter here: each worker would count it again.
        return self._gauge(f"ledger_{name}", text, mode, "shard")

    def _begin_at_zero(self) -> None:
        """A rate is seen from the first event on only if the series was there before it."""
        for name in PROTOCOLS:
            self._transfer_seconds.labels(name)
            for outcome in OUTCOMES:
                self._transfers.labels(name, outcome)
        for protocol in PHASED:
            self._course_seconds.labels(protocol.name)
            # `begin` is that of those that are refused before they have begun.
            for phase in {protocol.begin, *(step.phase for step in protocol.phases.values())}:
                self._phase_changes.labels(protocol.name, str(phase))
        for outcome in ("committed", "aborted"):
            self._recovered.labels(outcome)
        # The commonest: the branch is not known (any more).
        self._errors.labels("1397", "committing")
        for kind in ("decisions", "markers"):
            self.collected.labels(kind)

    # --- what happens -----------------------------------------------------------------------

    def answered(self, counts: Mapping[tuple[str, str, str | None], int], seconds: float) -> None:
        """Transfers that were handed in together have been answered: so many of each protocol,
        outcome and reason.
        """
        for (protocol, outcome, reason), count in counts.items():
            self._transfers.labels(protocol, outcome).inc(count)
            _observe(self._transfer_seconds.labels(protocol), seconds, count)
            if reason:
                self._refusals.labels(reason).inc(count)

    def not_taken(self, protocol: str, reason: str, count: int) -> None:
        """Transfers that did not even come to wait."""
        self._transfers.labels(protocol, "withdrawn").inc(count)
        self._refusals.labels(reason).inc(count)

    def phase(self, phase: str, seconds: float) -> None:
        self._phases.labels(phase).observe(seconds)

    def released(self, role: str, shard: str, seconds: float) -> None:
        """The locks of a branch are free again."""
        self._holds.labels(role, shard).observe(seconds)

    def called(self, shard: str, call: str, seconds: float) -> None:
        self._calls.labels(shard, call).observe(seconds)

    def failed(self, code: int, phase: str) -> None:
        """A shard did not do its part; `code` is the server's error number, 0 if there is none."""
        self._errors.labels(str(code), phase).inc()

    def recovered(self, outcome: str, shard: str, age_s: float) -> None:
        """Recovery has finished a branch of a group that was formed `age_s` ago."""
        self._recovered.labels(outcome).inc()
        self._holds.labels("recovered", shard).observe(age_s)

    def phases_changed(self, counts: Mapping[tuple[str, str], int]) -> None:
        """So many transfers of each protocol have come to a phase."""
        for labels, count in counts.items():
            self._phase_changes.labels(*labels).inc(count)

    def course_ended(self, protocol: str, seconds: float) -> None:
        self._course_seconds.labels(protocol).observe(seconds)

    def elected(self, vacant_s: float | None) -> None:
        """A term begins; the seat was seen empty for so long, if somebody had led before."""
        self.elections.inc()
        if vacant_s is not None:
            self.failover_seconds.observe(vacant_s)

    def requested(self, method: str, route: str, status: int, seconds: float) -> None:
        series = self._requested.get((method, route, status))
        if series is None:
            series = (
                self._requests.labels(method, route, str(status)),
                self._request_seconds.labels(method, route),
            )
            self._requested[method, route, status] = series
        count, duration = series
        count.inc()
        duration.observe(seconds)

    def know_shard(self, shard: str) -> None:
        """From now on its series are there, at zero."""
        for role in ROLES:
            self._holds.labels(role, shard)

    # --- reading ----------------------------------------------------------------------------

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text that Prometheus scrapes, and its content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):
            # It is malformed: as if nothing had been asked for.
            encode, content_type = choose_encoder("")
        with self._whole() as registry:
            return encode(registry), content_type

    def totals(self) -> Totals:
        """Sums over all workers; reads what a scrape reads."""
        outcomes: dict[str, float] = defaultdict(float)
        holds: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        with self._whole() as registry:
            samples = [sample for metric in registry.collect() for sample in metric.samples]
        for name, labels, value, *_ in samples:
            if name == "coordinator_transfers_total":
                outcomes[labels["outcome"]] += value
            elif name == "coordinator_lock_hold_seconds_bucket":
                holds[labels["role"]][float(labels["le"])] += value
        return Totals(
            dict(outcomes), {role: sorted(found.items()) for role, found in holds.items()}
        )

    @contextmanager
    def _whole(self) -> Iterator[CollectorRegistry]:
        """What all workers have counted, the ended ones among them."""
        folder = _shared_folder()
        if folder is None:
            yield self._registry
            return
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
        with _locked(folder, fcntl.LOCK_SH):
            yield registry


def _observe(histogram: Any, value: float, count: int) -> None:
    """`count` observations of one value, for the price of one."""
    if count:
        histogram._sum.inc(value * count)
        place = bisect.bisect_left(histogram._upper_bounds, value)
        histogram._buckets[place].inc(count)


# --- the folder that the workers share --------------------------------------------------------


@contextmanager
def shared(place: str = "") -> Iterator[None]:
    """For the process that starts the workers: the folder is there during the block, in `place` or
    where the system has its temporary files. Raises SettingsError.
    """
    parent = Path(place or tempfile.gettempdir())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise SettingsError(
            f"coordinator.scratch_dir = {place!r} cannot be used: {error}"
        ) from None
    _remove_abandoned(parent)
    # Held by whoever uses the folder, this process and its workers, until all have ended.
    hold = (folder / f"{_HOLD}.part").open("w")
    fcntl.flock(hold, fcntl.LOCK_EX)
    Path(hold.name).rename(folder / _HOLD)
    os.environ[_FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
    owner = os.getpid()
    try:
        yield
    finally:
        # Its workers leave the block, too.
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)
            hold.close()


def forget_worker(pid: int) -> None:
    """A worker has ended: its gauges count no more; what it has counted is kept, in one place for
    all that have ended, so that many of them take no more room than one.
    """
    folder = _shared_folder()
    if folder is None:
        return
    try:
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
            for kind in ("counter", "histogram"):
                _bury(folder / f"{kind}_{pid}.db", folder / f"{kind}_ended.db")
    except Exception as error:
        # It is called by the process that looks after all workers, and that nobody looks after.
        extra = {"event": "metrics.not_merged", "worker": pid}
        log.error("what worker %d has counted stays where it is: %s", pid, error, extra=extra)


def _bury(file: Path, ended: Path) -> None:
    """Add the counts of one file to those of the workers that have ended."""
    if not file.exists():
        return
    files = [str(path) for path in (file, ended) if path.exists()]
    merged = MultiProcessCollector.merge(files, accumulate=False)  # type: ignore[no-untyped-call]
    new = ended.with_suffix(".new")
    _make_room(new, max(Path(name).stat().st_size for name in files))
    kept = MmapedDict(str(new))  # type: ignore[no-untyped-call]
    for metric in merged:
        for name, labels, value, *_ in metric.samples:
            names, texts = list(labels), list(labels.values())
            key = mmap_key(metric.name, name, names, texts, metric.documentation)
            kept.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    kept.close()  # type: ignore[no-untyped-call]
    new.replace(ended)
    file.unlink()


def _reserve() -> None:
    """Take the room for this process's files; without it, what it counts is not shown."""
    folder = _shared_folder()
    if folder is None:
        return
    modes = ("livesum", "livemin", "livemax", "livemostrecent")
    try:
        for kind in ("counter", "histogram", *(f"gauge_{mode}" for mode in modes)):
            size = _HISTOGRAMS_BYTES if kind == "histogram" else _FILE_BYTES
            _make_room(folder / f"{kind}_{os.getpid()}.db", size)
    except OSError as error:
        extra = {"event": "metrics.off"}
        log.error(
            "metrics are off in this process: %s has no room for them (%s)",
            folder,
            error,
            extra=extra,
        )
        values.ValueClass = values.MutexValue


def _make_room(path: Path, size: int) -> None:
    """An empty file that can be written to that size; it has its name, by which scrapes find it,
    once it has all of it. Raises OSError.
    """
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _shared_folder() -> Path | None:
    named = os.environ.get(_FOLDER)
    return Path(named) if named else None


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """A scrape sees the files before or after one of them was moved, not in between.

    Raises BlockingIOError if it is not to block and the lock does not become free soon: a frozen
    worker may hold it.
    """
    with (folder / _LOCK).open("a") as file:
        for _ in range(_LOCK_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(file, how)
                break
            time.sleep(_LOCK_PAUSE_S)
        else:
            fcntl.flock(file, how)
        yield


def _remove_abandoned(parent: Path) -> None:
    """The folders of coordinators that were killed: nobody holds them any more."""
    for hold in parent.glob(f"{_PREFIX}*/{_HOLD}"):
        with suppress(OSError):
            if hold.stat().st_uid == os.getuid():
                with hold.open("r+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(hold.parent, ignore_errors=True)
