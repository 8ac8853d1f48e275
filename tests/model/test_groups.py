"""Every state that a transfer between two ledger groups can reach is whole, and can still end; with
a rule of E12 taken away some is not.
"""

from collections.abc import Callable

import pytest

from tests.model.explore import explore
from tests.model.groups import FLUSH_FIRST, Groups, Setting

STATES_MAX = 200_000


@pytest.mark.parametrize("protocol", ["tcc", "saga"])
def test_no_state_breaks_a_promise_and_every_attempt_can_end(
    protocol: str, record_property: Callable[[str, object], None]
) -> None:
    report = explore(Groups(Setting(protocol)), states_max=STATES_MAX)
    record_property("states", report.states)
    print(f"{report.states} states, {report.moves} moves, at most {report.depth} steps deep")
    assert report.violation is None, str(report.violation)
    assert report.ends > 0


@pytest.mark.parametrize(
    ("rule", "setting"),
    [
        ("ended attempts are kept", Setting("tcc", attempts=1)),
        ("compare and set", Setting("tcc", attempts=1)),
        ("compare and set", Setting("saga", attempts=1)),
        ("the empty cancel is kept", Setting("tcc", attempts=1)),
        ("one attempt at a time", Setting("tcc")),
        ("one attempt at a time", Setting("saga")),
        (FLUSH_FIRST, Setting("tcc", attempts=1)),
        (FLUSH_FIRST, Setting("saga", attempts=1)),
    ],
)
def test_without_a_rule_something_goes_wrong(rule: str, setting: Setting) -> None:
    without = setting._replace(without=frozenset({rule}), changes=False)
    violation = explore(Groups(without), states_max=STATES_MAX).violation
    if violation is None:
        changing = without._replace(changes=True)
        violation = explore(Groups(changing), states_max=STATES_MAX).violation
    print(violation)
    assert violation is not None


def test_of_a_saga_an_outcome_is_recorded_before_it_ends() -> None:
    """So the transfer's id keeps a late BEGIN out, even where ended attempts are forgotten."""
    rule = frozenset({"ended attempts are kept"})
    assert explore(Groups(Setting("saga", without=rule)), states_max=STATES_MAX).violation is None
