"""What the resolver of TC/C and Saga takes on next, when accounts are locked. No shard is asked."""

import itertools
import time
from math import inf
from typing import cast

import pytest

from coordinator.engine.in_flight import InFlight, Position, Task
from coordinator.engine.local_transactions import LocalRunner
from coordinator.engine.tickets import NotExecuted, NotExecutedReason
from coordinator.protocols.saga import SAGA
from coordinator.protocols.try_confirm_cancel import TCC
from coordinator.recovery.phased import PhasedResolver
from coordinator.recovery.retry_pool import Portion
from coordinator.shards.registry import Shards
from tests.unit.tickets import Shards as SomeShards
from tests.unit.tickets import queue, ticket


def resolver() -> PhasedResolver:
    """Not started: nobody takes anything from it."""
    return PhasedResolver(cast(Shards, SomeShards()), queue(), cast(LocalRunner, None))


def flight(destination: str, *, skips: int = 0, protocol: str = "saga") -> InFlight:
    """One that is to call its destination's shard."""
    queued = ticket("1a", destination, protocol=protocol)
    phase = {"saga": SAGA, "tcc": TCC}[protocol].first.phase
    made = InFlight(queued.transfer, "g", Position(phase, Task.CALL), 0.0, queued)
    made.skips = skips
    return made


def take(made: PhasedResolver) -> Portion[InFlight] | None:
    """What is taken next; it stays under way."""
    return made.pool.take(time.monotonic())[0]


def taken(made: PhasedResolver) -> set[InFlight] | None:
    portion = take(made)
    return set(portion.tasks) if portion else None


def test_all_that_want_a_locked_account_wait_as_one_and_beside_the_others() -> None:
    made = resolver()
    stuck = [flight("2stuck", skips=5) for _ in range(4)]
    other, free = flight("2other", skips=5), flight("2free")
    made.add(*stuck, other, free)
    first = take(made)
    assert first is not None
    assert first.tasks == [free]
    assert taken(made) in (set(stuck), {other})
    # One waits at a shard, so that there is a connection for whoever need not wait.
    assert taken(made) is None
    free.not_before = inf
    made.pool.give_back(first)
    assert taken(made) is None
    more = flight("2free")
    made.add(more)
    assert taken(made) == {more}


def test_one_that_may_have_made_others_fail_goes_by_itself_and_later() -> None:
    made = resolver()
    suspect, others = flight("2a"), [flight("2b"), flight("2c")]
    suspect.alone = True
    made.add(suspect, *others)
    assert taken(made) == set(others)
    assert taken(made) == {suspect}


def test_waits_for_locks_leave_threads_for_others() -> None:
    made = resolver()
    made.add(*(flight(f"{n}stuck", skips=5) for n in range(1, 7)))
    assert [taken(made) is not None for _ in range(6)] == [True] * 3 + [False] * 3
    free = flight("7free")
    made.add(free)
    assert taken(made) == {free}


def test_accounts_to_which_too_much_is_open_are_crowded() -> None:
    made = resolver()
    made.add(*(flight("2stuck", skips=1) for _ in range(3)), *(flight("2free") for _ in range(3)))
    assert made.crowded(3) == {"2stuck"}
    assert made.crowded(4) == set()


def test_what_can_be_given_up_is_after_a_second() -> None:
    made = resolver()
    tried, sent = flight("2stuck", protocol="tcc"), flight("2stuck")
    for one in (tried, sent):
        one.failed("account 2stuck is locked by other transfers", 10.0)
        made._give_up_late(one, 10.9)
        assert one.position.task is Task.CALL
        made._give_up_late(one, 11.1)
    assert tried.position.task is Task.ADVANCE
    assert isinstance(tried.not_executed, NotExecuted)
    assert tried.not_executed.reason is NotExecutedReason.ACCOUNT_BUSY
    assert "2stuck" in tried.not_executed.detail
    # A Saga's money has left its source: it goes on.
    assert sent.position.task is Task.CALL


def test_a_flight_that_moves_on_while_it_is_asked_for_its_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who counts flights does not hold the lock under which they move on."""
    phase, event = next(iter(TCC.orphaned.items()))
    advancing = Position(phase, Task.ADVANCE, event)
    positions = itertools.chain([advancing], itertools.repeat(Position(phase, Task.CALL)))
    asked = flight("2a", protocol="tcc")
    monkeypatch.setattr(InFlight, "position", property(lambda self: next(positions)), raising=False)
    expected = asked.transfer.source if TCC.step(phase, event).source else None
    assert asked.account == expected
