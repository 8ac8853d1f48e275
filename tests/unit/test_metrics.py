"""What is counted, in one process; the folder that workers share is tested with real ones."""

import pytest
from prometheus_client import CollectorRegistry, Histogram

from coordinator.queue import Excuse, NotDone, Refused, Settled
from coordinator.telemetry.metrics import Metrics, _observe
from coordinator.transfers import PENDING
from ledger.model import Reason, Refusal, Transfer
from shard_client.transfers import StoredTransfer

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
        (NotDone(Excuse.ACCOUNT_BUSY, "locked"), "withdrawn", "account-busy"),
        (PENDING, "pending", None),
    ],
)
def test_each_answer_counts_once(answer: object, outcome: str, reason: str | None) -> None:
    metrics = Metrics()
    metrics.answered([("xa", answer)] * 3, 0.2)
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
