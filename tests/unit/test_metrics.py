"""What is counted, in one process; the folder that workers share is tested with real ones."""

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram

from coordinator.engine.tickets import NotExecuted, NotExecutedReason, Refused, Settled, outcome_of
from coordinator.services.transfers import PENDING
from coordinator.telemetry.metrics import Metrics, _observe
from ledger.model import Reason, Refusal, Transfer
from shard_client.records import StoredTransfer

TRANSFER = Transfer("t", "k", "a", "b", 5, "EUR", None, "xa", 1)
COMMITTED = StoredTransfer(TRANSFER, "g", "committed", None, None, 2)
REJECTED = StoredTransfer(TRANSFER, "g", "rejected", "insufficient-funds", "too little", 2)


def lines(metrics: Metrics, name: str) -> dict[str, float]:
    text = metrics.exposition("")[0].decode()
    found = (line.rpartition(" ") for line in text.splitlines() if line.startswith(name))
    return {series: float(value) for series, _, value in found}


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        (Settled(COMMITTED, is_replay=False), "committed", None),
        (Settled(COMMITTED, is_replay=True), "replayed", None),
        (Settled(REJECTED, is_replay=False), "rejected", "insufficient-funds"),
        (Refused(Refusal(Reason.SAME_ACCOUNT, "a is both", True)), "rejected", "same-account"),
        (NotExecuted(NotExecutedReason.ACCOUNT_BUSY, "locked"), "withdrawn", "account-busy"),
        (PENDING, "pending", None),
    ],
)
def test_each_answer_counts_once(answer: object, outcome: str, reason: str | None) -> None:
    metrics = Metrics()
    metrics.answered({("xa", *outcome_of(answer)): 3}, 0.2)
    counted = {s: v for s, v in lines(metrics, "coordinator_transfers_total").items() if v}
    assert counted == {f'coordinator_transfers_total{{outcome="{outcome}",protocol="xa"}}': 3}
    refused = {s: v for s, v in lines(metrics, "coordinator_refusals_total").items() if v}
    expected = {f'coordinator_refusals_total{{reason="{reason}"}}': 3} if reason else {}
    assert refused == expected
    assert metrics.totals().outcomes[outcome] == 3


@pytest.mark.parametrize("value", [0.0, 0.001, 0.0011, 29.9, 30.0, 31.0])
def test_many_observations_at_once_are_as_many_single_ones(value: float) -> None:
    def made() -> tuple[CollectorRegistry, Histogram]:
        registry = CollectorRegistry()
        return registry, Histogram("h", "h", registry=registry, buckets=(0.001, 1, 30))

    (one, single), (other, many) = made(), made()
    for _ in range(4):
        single.observe(value)
    _observe(many, value, 4)
    samples = [
        {
            (s.name, s.labels.get("le")): s.value
            for m in r.collect()
            for s in m.samples
            if s.name != "h_created"
        }
        for r in (one, other)
    ]
    assert samples[0] == pytest.approx(samples[1])
    assert samples[0]["h_count", None] == 4


def test_lock_holds_are_summed_over_shards_by_role() -> None:
    metrics = Metrics()
    metrics.released("home", "s1", 0.004)
    metrics.released("home", "s2", 0.2)
    metrics.released("remote", "s2", 0.2)
    held = dict(metrics.totals().lock_hold["home"])
    assert (held[0.0025], held[0.005], held[0.25], held[float("inf")]) == (0, 1, 2, 2)


NO_ROOM = """
import os, resource, signal, sys
from coordinator.telemetry.metrics import Metrics, forget_worker, shared
with shared(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        made = Metrics()
        made.elected(None)
        made.exposition("")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "the worker does not start"
    forget_worker(pid)
    assert Metrics().exposition("")[0], "nothing can be scraped"
"""


def test_a_worker_that_finds_no_room_works_and_harms_no_other(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    assert "has no room for them" in told.stderr
    assert list(tmp_path.iterdir()) == []
