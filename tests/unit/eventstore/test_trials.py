"""Trial balances are made one after the other, and no more are taken than can be made soon;
other questions are answered meanwhile.
"""

from concurrent.futures import Future
from threading import Event
from typing import Any

import pytest

from eventstore.server.reads_service import TRIALS_MAX, ReadsService
from eventstore.wire.errors import Busy, NotYet
from eventstore.wire.questions import At, Position, Reach, Reached, TrialBalance, TrialBalanceIs

PATIENCE_S = 20


class Side:
    """A read side that makes a trial balance when it is let."""

    as_of = At(7, 70)

    def __init__(self) -> None:
        self.goes_on = Event()
        self.is_seen = True

    def wait_for(self, min_seq: int, timeout_s: float) -> bool:
        return self.is_seen

    def trial_balance(self, time_us: int | None) -> TrialBalanceIs:
        assert self.goes_on.wait(PATIENCE_S)
        return TrialBalanceIs(self.as_of, time_us or 0, [])


def service_on(side: Side) -> ReadsService:
    none: Any = None
    made = ReadsService(side, none, lambda: none, lambda: side.as_of, lambda: side.as_of)  # type: ignore[arg-type]
    made.saw(side.as_of.seq)
    return made


def ask(service: ReadsService, question: Any) -> "Future[Any]":
    asker: Any = None
    found: Future[Any] = service.question(question, asker)
    return found


def test_no_more_are_taken_than_can_be_made_soon() -> None:
    side = Side()
    service = service_on(side)
    asked = [ask(service, TrialBalance(n)) for n in range(TRIALS_MAX)]
    with pytest.raises(Busy, match=f"{TRIALS_MAX} trial balances"):
        ask(service, TrialBalance(None))
    # Whoever asks for something else is answered all the same.
    assert ask(service, Reach(Position(7), 0.0)).result(PATIENCE_S) == Reached(side.as_of, True)
    side.goes_on.set()
    assert [each.result(PATIENCE_S).time_us for each in asked] == list(range(TRIALS_MAX))
    assert ask(service, TrialBalance(5)).result(PATIENCE_S).time_us == 5
    service.close()


def test_a_frame_that_is_not_seen_is_said() -> None:
    side = Side()
    side.is_seen = False
    service = service_on(side)
    with pytest.raises(NotYet, match="frame 9"):
        ask(service, TrialBalance(None, 9)).result(PATIENCE_S)
    waiting = ask(service, Reach(Position(9), 0.0))
    service.expire()
    with pytest.raises(NotYet, match=r"frame 9 was not seen in 0\.0 s; the last one was 7"):
        waiting.result(PATIENCE_S)
    service.close()
