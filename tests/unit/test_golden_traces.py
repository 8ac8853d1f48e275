"""The golden traces in tests/traces/ are what the product does today."""

from collections.abc import Mapping
from difflib import unified_diff
from typing import Any

import pytest

from coordinator.engine import in_flight
from coordinator.protocols import saga, two_phase_commit
from coordinator.protocols import try_confirm_cancel as tcc
from coordinator.protocols.phased import PhasedProtocol, Reaction, Step
from ledger.decide import Move
from ledger.errors import Bug
from shard_client.branch import Branch
from tests.traces.made import FOLDER, SCENES, make, path_of

ANEW = "If that is as it should be: `python -m tests.traces` makes the traces anew."


@pytest.mark.parametrize("name", SCENES)
def test_a_trace_is_what_the_product_does(name: str) -> None:
    path = path_of(name)
    before, now = path.read_text().splitlines(), make(name).splitlines()
    names = (f"{path.name}, as it is", "as the product does it now")
    if diff := "\n".join(unified_diff(before, now, *names, lineterm="")):
        pytest.fail(f"{diff}\n\n{ANEW}", pytrace=False)


def test_no_trace_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(SCENES)


_P, _E, _F = two_phase_commit.Phase, two_phase_commit.Event, two_phase_commit.Effect
_TO_COMMIT = two_phase_commit.Step(_P.COMMITTING, _F.COMMIT_BRANCHES)
_TO_ABORT = two_phase_commit.Step(_P.ABORTING, _F.ROLL_BACK_BRANCHES)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("commit-across-shards", {(_P.PREPARING, _E.ALL_VOTED_YES): _TO_COMMIT}),
        ("refused", {(_P.LOCKING, _E.ONE_SHARD_WRITES): _TO_ABORT}),
        ("decision-answer-lost", {(_P.DECIDING, _E.DECISION_UNKNOWN): _TO_ABORT}),
        ("abort-by-recovery", {(_P.ARBITRATING, _E.FOUND_ABORTED): _TO_COMMIT}),
    ],
)
def test_another_table_of_two_phase_commit_shows(
    name: str, changed: Mapping[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_phase_commit, "TABLE", {**two_phase_commit.TABLE, **changed})
    assert is_another(name)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        (
            "try-expires",
            tcc.TCC._replace(
                calls={
                    **tcc.CALLS,
                    (tcc.State.CANCELLED, tcc.Call.TRY): Reaction(
                        tcc.State.TRIED, Move.EXPECT, tcc.Event.TRIED
                    ),
                }
            ),
        ),
        ("try-expires", tcc.TCC._replace(orphaned={})),
        (
            "saga-refunded",
            saga.SAGA._replace(
                phases={
                    **saga.PHASES,
                    (saga.Phase.COMPENSATING, saga.Event.DUE): Step(
                        saga.Phase.COMPENSATED, None, None
                    ),
                }
            ),
        ),
    ],
    ids=["a try behind its cancel reserves", "a try is repeated", "a refund is left out"],
)
def test_another_table_of_a_phased_protocol_shows(
    name: str, protocol: PhasedProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "PROTOCOLS", {**in_flight.PROTOCOLS, protocol.name: protocol})
    assert is_another(name)


def test_another_packet_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Branch, "write", Branch.write_unprepared)
    assert is_another("commit-across-shards")


def is_another(name: str) -> bool:
    """Whether a trace is not as it was; a money rule or a table may stop it on its way."""
    try:
        return make(name) != path_of(name).read_text()
    except Bug:
        return True
