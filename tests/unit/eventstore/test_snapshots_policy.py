"""When a snapshot is due."""

import pytest

from eventstore.snapshots.policy import Policy

POLICY = Policy(commands=1000, share=4, seconds=60, frame=100)


@pytest.mark.parametrize(
    ("commands", "accounts", "seconds", "frames", "transfers", "is_due"),
    [
        (1000, 0, 60, 0, 0, True),
        (999, 0, 60, 0, 0, False),
        (1000, 0, 59.9, 0, 0, False),
        # A large state is written less often.
        (1000, 4000, 60, 0, 0, True),
        (1000, 4004, 60, 0, 0, False),
        (1000, 2000, 60, 0, 2004, False),
        (1001, 2000, 60, 0, 2004, True),
        # Small frames take long to replay; those without a command never make it due.
        (10, 0, 60, 10, 0, True),
        (10, 0, 60, 9, 0, False),
        (0, 0, 10**9, 10**9, 0, False),
    ],
)
def test_when_it_is_due(
    commands: int, accounts: int, seconds: float, frames: int, transfers: int, is_due: bool
) -> None:
    found = POLICY.is_due(commands, accounts, seconds, frames_since=frames, transfers=transfers)
    assert found == is_due


def test_a_group_that_has_just_begun_has_none() -> None:
    assert not Policy().is_due(0, 0, 0)
    assert Policy().is_due(10**8, 10**6, 3600)
