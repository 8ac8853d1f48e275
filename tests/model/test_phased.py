"""Every state that the model of Try-Confirm/Cancel and Saga can reach is whole, and can still end;
with a rule taken away some is not.
"""

from collections.abc import Callable
from typing import Any

import pytest

from coordinator.engine import in_flight
from coordinator.protocols import saga
from coordinator.protocols import try_confirm_cancel as tcc
from coordinator.protocols.phased import PhasedProtocol, Reaction
from ledger.decide import Move
from ledger.errors import Bug
from ledger.model import Status
from shard_client.records import LocalWrites
from tests.model.explore import explore
from tests.model.phased import Phased, Setting

STATES_MAX = 400_000

WORLDS = {
    "one client, two who take over, two faults": {"recoverers": 2, "faults": 2},
    "two clients, one fault": {"clients": 2},
    "a refused destination": {"destination": Status.CLOSED, "recoverers": 2, "faults": 2},
    "no destination": {"destination": None, "clients": 2},
    "accounts that open and close": {"changes": True},
    "a destination that is opened late": {"destination": None, "changes": True, "faults": 2},
    "commits that are shown early": {"shows_early": True, "faults": 3},
    "two clients, commits that are shown early": {"shows_early": True, "clients": 2, "faults": 2},
}


@pytest.mark.parametrize("protocol", ["tcc", "saga"])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_no_state_breaks_a_promise_and_every_state_can_end(
    protocol: str, world: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    report = explore(Phased(Setting(protocol, **world)), states_max=STATES_MAX)
    record_property("states", report.states)
    print(f"{report.states} states, {report.moves} moves, at most {report.depth} steps deep")
    assert report.violation is None, str(report.violation)
    assert report.ends > 0


S, C, E = tcc.State, tcc.Call, tcc.Event
BROKEN = {
    "a try behind its cancel is carried out": (
        tcc.TCC._replace(
            calls={**tcc.CALLS, (S.CANCELLED, C.TRY): Reaction(S.TRIED, Move.EXPECT, E.TRIED)}
        ),
        {"recoverers": 2, "faults": 2},
    ),
    "a confirm is carried out again": (
        tcc.TCC._replace(
            calls={**tcc.CALLS, (S.CONFIRMED, C.CONFIRM): tcc.CALLS[S.TRIED, C.CONFIRM]}
        ),
        {"recoverers": 2, "faults": 2},
    ),
    "a credit is carried out again": (
        saga.SAGA._replace(
            calls={
                **saga.CALLS,
                (saga.State.CREDITED, saga.Call.CREDIT): saga.CALLS[
                    saga.State.ABSENT, saga.Call.CREDIT
                ],
            }
        ),
        {"recoverers": 1, "faults": 1},
    ),
    "a refusal is not for good": (
        saga.SAGA._replace(
            calls={
                **saga.CALLS,
                (saga.State.REFUSED, saga.Call.CREDIT): saga.CALLS[
                    saga.State.ABSENT, saga.Call.CREDIT
                ],
            }
        ),
        {"destination": None, "changes": True, "recoverers": 2, "faults": 2},
    ),
}


@pytest.mark.parametrize(("protocol", "world"), BROKEN.values(), ids=BROKEN)
def test_without_a_rule_something_goes_wrong(
    protocol: PhasedProtocol, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "PROTOCOLS", {**in_flight.PROTOCOLS, protocol.name: protocol})
    monkeypatch.setattr("tests.model.phased.PROTOCOLS", in_flight.PROTOCOLS)
    setting = Setting(protocol.name, **world)
    violation: object
    try:
        violation = explore(Phased(setting), states_max=STATES_MAX).violation
    except Bug as error:
        # The money rules refuse what the table should have.
        violation = error
    print(violation)
    assert violation is not None


def test_what_was_only_read_must_be_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule R2: whoever goes on from what another has committed commits something too."""
    writes = ("accounts", "entries", "transfers", "begun", "changed", "new_steps", "next_steps")
    monkeypatch.setattr(
        LocalWrites, "is_empty", property(lambda self: not any(getattr(self, w) for w in writes))
    )
    setting = Setting("saga", shows_early=True, faults=3)
    violation = explore(Phased(setting), states_max=STATES_MAX).violation
    assert violation is not None
    assert "money is lost or made" in violation.what
