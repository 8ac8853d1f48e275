"""What a ledger group's calls say when only a part of what was asked is decided or can be shown."""

import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from coordinator.shards.group.calls import GroupCalls
from eventstore.client import Answered
from eventstore.rows import DETAIL, Code, Commands, Outcomes
from eventstore.wire.answers import Piece
from shard_client.errors import ConnectionLost, NoTime, ShardError, TryAgain
from shard_client.records import Terms

TERMS = [Terms("a", "EUR", 0), Terms("b", "EUR", 0)]


class Link:
    """A link whose node decides the first `taken` commands, and whose read side has no time."""

    shard = "s1"

    def __init__(self, taken: int, rest: str | None) -> None:
        codes = np.full(taken, Code.DONE, np.uint8)
        pieces = [Piece(0, 7, 0, 70, Outcomes(codes, np.empty(0, DETAIL)))] if taken else []
        self._answered = Answered(pieces, {}, rest)

    def submit(self, commands: Commands, texts: bytes) -> "Future[Answered]":
        answered: Future[Answered] = Future()
        answered.set_result(self._answered)
        return answered

    def result(self, answered: "Future[Answered]", deadline: float) -> Answered:
        return answered.result()

    def ask_reads(self, *question: Any) -> Any:
        raise NoTime(self.shard, "the deadline was over before it was asked")


def opened(link: Link) -> tuple[ShardError, list[ShardError]]:
    """What is raised, and what is noted of the group."""
    noted: list[ShardError] = []
    calls = GroupCalls(link, noted.append)  # type: ignore[arg-type]
    with pytest.raises(ShardError) as raised:
        calls.open_accounts(TERMS, 0, time.monotonic() + 5)
    return raised.value, noted


def test_what_was_not_taken_has_not_happened() -> None:
    error, _ = opened(Link(0, "it is full"))
    assert isinstance(error, TryAgain)
    assert error.text == "it is full"


def test_what_was_taken_in_part_may_have_happened() -> None:
    error, noted = opened(Link(1, "it is full"))
    assert isinstance(error, ConnectionLost)
    assert error.text == "only the first of what was asked is decided: it is full"
    # Nothing is wrong with the group.
    assert noted == []


def test_what_is_decided_and_cannot_be_shown_has_happened() -> None:
    error, noted = opened(Link(2, None))
    assert isinstance(error, ConnectionLost)
    assert "what was asked is decided, and cannot be shown: the deadline" in error.text
    assert noted == []
