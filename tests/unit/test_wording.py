"""What is said of a transfer by TC/C or Saga that is not finished."""

import pytest

from coordinator.engine.in_flight import PROTOCOLS
from coordinator.operations.wording import EXPLANATIONS, NextStep, Side, in_words

STEP = NextStep("bob", "s2", "the leader, c2,", "its process is gone", 0.0, None, None)


def test_every_phase_that_can_be_left_has_words() -> None:
    assert set(EXPLANATIONS) == {phase for p in PROTOCOLS.values() for phase in p.source_states}


@pytest.mark.parametrize(
    ("protocol", "phase"), [(p, phase) for p in PROTOCOLS.values() for phase in p.source_states]
)
def test_the_step_is_where_the_words_say(protocol, phase) -> None:
    """A call is made on the destination's shard, unless who takes over does not repeat it."""
    event = protocol.orphaned.get(phase) or protocol.by_itself.get(phase)
    assert EXPLANATIONS[phase].side is (Side.SOURCE if event else Side.DESTINATION)


@pytest.mark.parametrize("phase", EXPLANATIONS)
def test_words(phase) -> None:
    said = in_words(phase, STEP)
    assert said.startswith(f"{EXPLANATIONS[phase].money}; its process is gone; the leader, c2, ")
    assert " now: " in said
    assert "s2" in said
    assert "{" not in said
    assert " in 9 s: " in in_words(phase, STEP._replace(in_s=9.2))
    away = in_words(phase, STEP._replace(away="cannot be reached", blocked_by="x"))
    assert away == f"{said}; it waits for s2 (cannot be reached); bring s2 back"
    blocked = in_words(phase, STEP._replace(blocked_by="account bob is locked"))
    assert blocked == f"{said}; the last try failed: account bob is locked"
