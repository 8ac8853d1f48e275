"""Traces of a real coordinator: the way of one transfer across two shards, and of a recovery."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bank import Bank, client, transfer
from tests.cluster import Cluster, wait_until
from tests.collector import Collector, Span, collector
from tests.faults.victims import Victim, new_name
from tests.logs import events

CALLER = "00f067aa0ba902b7"
STRUCK, PLAIN, UNSAMPLED = ("1" * 32, "2" * 32, "3" * 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def sent(mysql_cluster: Cluster, folder: Path) -> Iterator[tuple[Collector, Victim]]:
    """What a coordinator has sent that traces only what its caller traces. The answer to its first
    commit is lost to it.
    """
    bank = Bank(mysql_cluster, 2)
    with collector() as running:
        victim = Victim(
            mysql_cluster,
            new_name(),
            folder,
            "after-decision@s1=cut*1",
            TANDEM_TRACING_ENDPOINT=running.endpoint,
            TANDEM_TRACING_SAMPLE_RATIO="0",
        )

        def pay(http, key: str, parent: str | None) -> None:
            body = transfer(*bank.two_across(), 5, key)
            headers = {"Idempotency-Key": body.pop("idempotency_key"), "X-Request-Id": key}
            if parent:
                headers["traceparent"] = parent
            assert http.post("/v1/transfers", json=body, headers=headers).status_code == 201

        try:
            victim.start()
            with client(victim.url) as http:
                pay(http, "struck", f"00-{STRUCK}-{CALLER}-01")
                pay(http, "plain", f"00-{PLAIN}-{CALLER}-01")
                pay(http, "unsampled", f"00-{UNSAMPLED}-{CALLER}-00")
                pay(http, "alone", None)
            wait_until(lambda: not victim.in_doubt(), 10, "something stays in doubt")
            assert victim.process
            # What was not sent yet is sent now.
            victim.process.terminate()
            victim.process.wait(30)
        finally:
            victim.stop()
        yield running, victim


def request(sent: Collector, trace: str) -> Span:
    (span,) = [span for span in sent.named("POST /v1/transfers") if span.trace == trace]
    return span


def gtrid_of(span: Span) -> object:
    return span.attributes["tandem.gtrid"]


def test_only_what_the_caller_traces_is_traced(sent: tuple[Collector, Victim]) -> None:
    found, _ = sent
    assert {span.trace for span in found.named("POST /v1/transfers")} == {STRUCK, PLAIN}


def test_the_request_is_within_its_callers_trace(sent: tuple[Collector, Victim]) -> None:
    found, victim = sent
    span = request(found, PLAIN)
    assert span.parent == CALLER
    assert span.attributes["http.response.status_code"] == 201
    assert span.attributes["http.route"] == "/v1/transfers"
    assert span.attributes["tandem.request_id"] == "plain"
    assert span.resource["service.name"] == "tandem"
    assert str(span.resource["service.instance.id"]).startswith(f"{victim.name}-")
    (line,) = [line for line in events(victim.log, "http.request") if line["request_id"] == "plain"]
    assert line["trace_id"] == PLAIN
    assert line["gtrid"] == gtrid_of(span)
    assert line["transfer_id"] == span.attributes["tandem.transfer_id"]


def test_the_queue_and_the_group_are_linked(sent: tuple[Collector, Victim]) -> None:
    found, _ = sent
    span = request(found, PLAIN)
    (queue,) = found.children(span)
    assert queue.name == "queue"
    (group,) = [other for other in found.named("group") if gtrid_of(other) == gtrid_of(span)]
    assert queue.links == [group.id]
    assert group.links == [span.id]
    assert group.trace != span.trace
    assert group.parent == ""
    assert group.attributes["tandem.transfers"] == 1
    assert group.attributes["tandem.end"] == "committed"
    assert span.start_ns <= queue.start_ns <= queue.end_ns <= group.end_ns


def test_the_tree_of_a_transfer_across_two_shards(sent: tuple[Collector, Victim]) -> None:
    found, _ = sent
    gtrid = gtrid_of(request(found, PLAIN))
    (group,) = [span for span in found.named("group") if gtrid_of(span) == gtrid]
    tree = {
        phase.name: sorted(
            (call.name, call.attributes["tandem.shard"], call.attributes["tandem.role"])
            for call in found.children(phase)
        )
        for phase in found.children(group)
    }
    assert tree == {
        "locking": [("lock", "s1", "home"), ("lock", "s2", "remote")],
        "preparing": [("write", "s1", "home"), ("write", "s2", "remote")],
        "deciding": [("decide", "s1", "home")],
        "committing": [("commit", "s2", "remote")],
    }
    assert list(tree) == ["locking", "preparing", "deciding", "committing"]
    for phase in found.children(group):
        assert gtrid_of(phase) == gtrid
        for call in found.children(phase):
            assert gtrid_of(call) == gtrid
            assert phase.start_ns <= call.start_ns < call.end_ns <= phase.end_ns
            assert not call.is_error


def test_recovery_has_a_span(sent: tuple[Collector, Victim]) -> None:
    found, _ = sent
    gtrid = gtrid_of(request(found, STRUCK))
    (group,) = [span for span in found.named("group") if gtrid_of(span) == gtrid]
    assert group.attributes["tandem.end"] == "arbitrating"
    (decide,) = [span for span in found.named("decide") if gtrid_of(span) == gtrid]
    assert decide.is_error
    (recovery,) = found.named("recovery")
    assert gtrid_of(recovery) == gtrid
    assert recovery.attributes["tandem.outcome"] == "committed"
    assert recovery.start_ns < recovery.end_ns
