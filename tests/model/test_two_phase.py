"""Every state that the model of two-phase commit can reach is whole, and can still end; without any
one of the rules some is not, or cannot.

TANDEM_MODEL=large explores the large arrangements too: some ten minutes, and 1 GB of memory.
"""

import os
from collections.abc import Callable, Iterator

import pytest

from coordinator.protocols.two_phase_commit import TABLE, Event, Phase, Step, step
from tests.model import recovery, steps
from tests.model.explore import Move, Report, TooManyStates, explore
from tests.model.settings import COVERED, LARGE, NEEDED, SMALL
from tests.model.two_phase import TwoPhase, explored
from tests.model.world import Draft, Setting, State

SMALL_MAX = 200_000
LARGE_MAX = 10_000_000

# Where rules are taken away, beside the small arrangements.
OTHERS = [w for w in dict.fromkeys(w for _, w, _ in NEEDED) if w not in SMALL.values()]

Record = Callable[[str, object], None]


def run(setting: Setting, record: Record, states_max: int = SMALL_MAX) -> Report:
    report = explored(setting, states_max)
    record("states", report.states)
    record("moves", report.moves)
    record("depth", report.depth)
    print(f"{report.states} states, {report.moves} moves, at most {report.depth} steps deep")
    return report


@pytest.mark.parametrize("setting", SMALL.values(), ids=SMALL)
def test_no_state_breaks_a_promise_and_every_state_can_end(
    setting: Setting, record_property: Record
) -> None:
    report = run(setting, record_property)
    assert report.violation is None, str(report.violation)
    assert report.ends > 0


@pytest.mark.skipif(os.environ.get("TANDEM_MODEL") != "large", reason="TANDEM_MODEL is not large")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("setting", LARGE.values(), ids=LARGE)
def test_the_same_in_larger_worlds(setting: Setting, record_property: Record) -> None:
    report = run(setting, record_property, LARGE_MAX)
    assert report.violation is None, str(report.violation)


@pytest.mark.parametrize(
    ("rules", "setting", "what"), NEEDED, ids=[", ".join(sorted(rules)) for rules, _, _ in NEEDED]
)
def test_without_a_rule_something_goes_wrong(
    rules: set[str], setting: Setting, what: str, record_property: Record
) -> None:
    report = run(setting._replace(without=frozenset(rules)), record_property)
    assert report.violation is not None
    print(report.violation)
    record_property("steps", len(report.violation.trace))
    assert what in report.violation.what


class Noting(TwoPhase):
    """The model; it notes the states that are visited."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.visited: set[State] = set()

    def what_is_wrong(self, state: State) -> str | None:
        self.visited.add(state)
        return super().what_is_wrong(state)


def visited(setting: Setting) -> set[State]:
    model = Noting(setting)
    assert explore(model, states_max=SMALL_MAX).violation is None
    return model.visited


TWINS = {name: setting for name, setting in SMALL.items() if setting.has_twins}


@pytest.mark.parametrize("setting", TWINS.values(), ids=TWINS)
def test_coordinators_that_are_alike_are_counted_once(setting: Setting) -> None:
    """Told apart they reach nothing else: each state that they reach, or its mirror, is visited."""
    apart = setting._replace(are_told_apart=True)
    told_apart, together = visited(apart), visited(setting)
    assert together < told_apart
    assert len(together) < 0.6 * len(told_apart)
    for state in told_apart - together:
        mirrored = Draft(apart, state)
        mirrored.exchange()
        assert mirrored.freeze() in together


@pytest.mark.parametrize("setting", OTHERS)
def test_with_all_rules_nothing_goes_wrong_there(setting: Setting) -> None:
    """What the test above shows is due to the rule, not to the arrangement."""
    assert explore(TwoPhase(setting), states_max=SMALL_MAX).violation is None


@pytest.mark.parametrize(
    ("rules", "setting"), COVERED, ids=[", ".join(rules) for rules, _ in COVERED]
)
def test_another_rule_stands_in_for_it(
    rules: set[str], setting: Setting, record_property: Record
) -> None:
    assert run(setting._replace(without=frozenset(rules)), record_property).violation is None


def test_without_recovery_something_stays_prepared_for_ever() -> None:
    report = explore(TwoPhase(Setting(homes=(0,), recoverers=0)), states_max=SMALL_MAX)
    assert report.violation is not None
    assert "prepared" in report.violation.state
    assert report.violation.trace[-1] == "A crashes"


def test_every_line_of_the_table_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: set[tuple[Phase, Event]] = set()

    def noting_step(phase: Phase, event: Event) -> Step:
        walked.add((phase, event))
        return step(phase, event)

    monkeypatch.setattr(steps, "step", noting_step)
    monkeypatch.setattr(recovery, "step", noting_step)
    for setting in (Setting(homes=(0,)), SMALL["one shard, two coordinators"]):
        explore(TwoPhase(setting), states_max=SMALL_MAX)
    assert walked == set(TABLE)


class Walk:
    """A toy for the explorer: from 0 one can go up by 1 or, by a fault, by 3; 5 is the end."""

    def __init__(self, wrong: int | None, last: int) -> None:
        self._wrong = wrong
        self._last = last

    def initial(self) -> int:
        return 0

    def moves(self, state: int) -> Iterator[Move]:
        if state < 5:
            yield Move(f"{state} + 1", state + 1, is_fault=False)
        if state + 3 <= self._last:
            yield Move(f"{state} jumps", state + 3, is_fault=True)

    def what_is_wrong(self, state: int) -> str | None:
        return "it is wrong" if state == self._wrong else None

    def is_end(self, state: int) -> bool:
        return state == 5

    def describe(self, state: int) -> str:
        return f"at {state}"


def test_the_explorer_visits_all() -> None:
    assert explore(Walk(None, 5), states_max=6) == Report(6, 8, 1, 3, None)
    with pytest.raises(TooManyStates):
        explore(Walk(None, 5), states_max=5)


def test_the_explorer_finds_a_shortest_way_to_what_is_wrong() -> None:
    violation = explore(Walk(4, 5), states_max=6).violation
    assert violation is not None
    assert violation.trace == ["0 + 1", "1 jumps"]
    assert str(violation).splitlines()[0] == "it is wrong, after 2 steps:"


def test_the_explorer_finds_what_cannot_end() -> None:
    violation = explore(Walk(None, 6), states_max=7).violation
    assert violation is not None
    assert (violation.what, violation.state) == ("from here nothing can end any more", "at 6")
    assert violation.trace == ["0 jumps", "3 jumps"]
