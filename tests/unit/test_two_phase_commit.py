"""The table of two-phase commit, enumerated: it is small enough to try all of it."""

from itertools import product

import pytest

from coordinator.protocols.two_phase_commit import (
    FINAL,
    TABLE,
    Effect,
    Event,
    IllegalStep,
    Phase,
    diagram,
    step,
)

# Where somebody enters: the coordinator of a group, and whoever finishes another's.
ENTRIES = (Phase.LOCKING, Phase.ARBITRATING)
# The answers that say that the decision row, or the only shard's commit, is there.
DECISIONS = {Event.DECIDED, Event.FOUND_COMMITTED}
Path = tuple[tuple[Phase, Event], ...]


def reachable(start: Phase) -> set[Phase]:
    """The phases to which some events lead, `start` included."""
    found, new = {start}, [start]
    while new:
        phase = new.pop()
        for (origin, _), (target, _) in TABLE.items():
            if origin is phase and target not in found:
                found.add(target)
                new.append(target)
    return found


def paths(start: Phase) -> list[tuple[Path, Phase]]:
    """Every way from `start` to an end. There are no circles in the table, see below."""
    if start in FINAL:
        return [((), start)]
    return [
        (((start, event), *rest), end)
        for (origin, event), (target, _) in TABLE.items()
        if origin is start
        for rest, end in paths(target)
    ]


def test_every_phase_that_is_not_final_has_a_way_to_an_end() -> None:
    for phase in Phase:
        assert reachable(phase) & FINAL, phase


def test_nothing_leads_out_of_an_end() -> None:
    assert not [pair for pair in TABLE if pair[0] in FINAL]


def test_there_are_no_circles() -> None:
    for (origin, _), (target, _) in TABLE.items():
        assert origin not in reachable(target)


def test_every_phase_event_and_effect_is_used() -> None:
    assert set.union(*(reachable(phase) for phase in ENTRIES)) == set(Phase)
    assert {event for _, event in TABLE} == set(Event)
    assert {effect for _, effect in TABLE.values()} == set(Effect)


@pytest.mark.parametrize(("phase", "event"), list(product(Phase, Event)))
def test_a_pair_leads_where_the_table_says_or_is_a_bug(phase: Phase, event: Event) -> None:
    if (phase, event) in TABLE:
        assert step(phase, event) == TABLE[phase, event]
        return
    with pytest.raises(IllegalStep, match=f"{event} cannot occur while {phase}"):
        step(phase, event)


def test_from_committing_nothing_is_undone() -> None:
    assert reachable(Phase.COMMITTING) == {Phase.COMMITTING, Phase.COMMITTED}


def test_from_aborting_nothing_is_committed() -> None:
    assert reachable(Phase.ABORTING) == {Phase.ABORTING, Phase.ABORTED}


def test_nobody_commits_without_a_decision() -> None:
    for entry in ENTRIES:
        for path, end in paths(entry):
            decided = [event for _, event in path if event in DECISIONS]
            assert (end is Phase.COMMITTED) == (len(decided) == 1), path
    for (_, event), (target, _) in TABLE.items():
        if target is Phase.COMMITTING:
            assert event in DECISIONS


def test_nobody_decides_without_every_vote() -> None:
    for path, end in paths(Phase.LOCKING):
        if end is Phase.COMMITTED:
            assert Event.ALL_VOTED_YES in [event for _, event in path]


def test_several_shards_go_through_prepare_and_a_decision_row() -> None:
    for path, end in paths(Phase.LOCKING):
        events = [event for _, event in path]
        if end is Phase.COMMITTED and Event.SEVERAL_SHARDS_WRITE in events:
            effects = [TABLE[pair].effect for pair in path]
            decisive = effects.index(Effect.INSERT_DECISION)
            assert effects.index(Effect.WRITE_AND_PREPARE) < decisive
            assert decisive < effects.index(Effect.COMMIT_BRANCHES)


def test_an_unknown_decision_is_asked_for_and_never_guessed() -> None:
    assert step(Phase.DECIDING, Event.DECISION_UNKNOWN) == (Phase.ARBITRATING, Effect.ARBITRATE)
    asked = {
        event: target for (phase, event), (target, _) in TABLE.items() if phase is Phase.ARBITRATING
    }
    assert asked == {
        Event.FOUND_COMMITTED: Phase.COMMITTING,
        Event.FOUND_ABORTED: Phase.ABORTING,
    }


def test_branches_are_committed_and_rolled_back_in_their_phases_only() -> None:
    for target, effect in TABLE.values():
        assert (effect is Effect.COMMIT_BRANCHES) == (target is Phase.COMMITTING)
        assert (effect is Effect.ROLL_BACK_BRANCHES) == (target is Phase.ABORTING)
        assert (effect is Effect.ANSWER) == (target is Phase.COMMITTED)


def test_a_lost_commit_of_a_single_shard_is_unsettled() -> None:
    end = step(Phase.COMMITTING_ALONE, Event.DECISION_UNKNOWN)
    assert end == (Phase.UNSETTLED, Effect.RUN_AGAIN)
    assert {path[-1] for path, end in paths(Phase.LOCKING) if end is Phase.UNSETTLED} == {
        (Phase.COMMITTING_ALONE, Event.DECISION_UNKNOWN)
    }


def test_the_diagram_is_the_table() -> None:
    lines = diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert "    [*] --> locking" in lines
    assert "    [*] --> arbitrating: recovery" in lines
    for (phase, event), (target, effect) in TABLE.items():
        line = f"    {phase.name.lower()} --> {target.name.lower()}: {event} / {effect}"
        assert lines.count(line) == 1
    assert [line for line in lines if line.endswith("--> [*]")] == [
        f"    {phase.name.lower()} --> [*]" for phase in Phase if phase in FINAL
    ]
    assert len(lines) == 1 + len(ENTRIES) + len(TABLE) + len(FINAL)
