"""An answer counts when it is whole, and only then."""

from typing import Any

import pytest

from shard_client.connection import END, Reply, Result, ShardConnection
from shard_client.errors import ShardUnavailable
from shard_client.session import ROWS_MAX
from shard_client.transfers import stored_of

LINES = ["alice\tEUR\t5", "bob\tEUR\t-5", "a\nb\t"]
TEXT = "\n".join(line + END for line in LINES)


class Answering(ShardConnection):
    """A session that has answered already."""

    def __init__(self, results: list[Result]) -> None:
        self.shard = "s1"
        self.packet_max = 131072
        self.results = results
        self.is_closed = False

    def receive(self, deadline: float) -> list[Result]:
        return self.results

    def close(self) -> None:
        self.is_closed = True


def answer(*rows: tuple[Any, ...]) -> Result:
    return Result(rows, len(rows))


@pytest.fixture
def connection() -> Answering:
    return Answering([])


def test_rows_that_came_as_one_text(connection: Answering) -> None:
    assert connection.lines([answer((3, TEXT))]) == LINES
    assert connection.lines([answer((0, None))]) == []
    assert connection.lines([answer((3, TEXT)), answer((1, "c" + END))]) == [*LINES, "c"]
    assert connection.lines([]) == []


def test_a_text_that_was_cut_anywhere_is_no_answer() -> None:
    for length in range(len(TEXT)):
        connection = Answering([])
        with pytest.raises(ShardUnavailable, match="max_allowed_packet is 131072"):
            connection.lines([answer((3, TEXT[:length]))])
        assert connection.is_closed


@pytest.mark.parametrize("rows", [[], [(3, None)], [(2, TEXT)], [(4, TEXT)], [(0, TEXT)]])
def test_a_text_that_does_not_fit_its_number_is_no_answer(
    connection: Answering, rows: list[tuple[Any, ...]]
) -> None:
    with pytest.raises(ShardUnavailable, match="counts for nothing"):
        connection.lines([answer(*rows)])


def test_rows_come_with_their_proof() -> None:
    connection = Answering([answer(("a",), ("b",)), answer((ROWS_MAX,))])
    reply = Reply(connection, 0.0, lambda results: results, has_proof=True)
    assert reply.get() == [answer(("a",), ("b",))]


@pytest.mark.parametrize("proof", [[(100,)], [(1,)], [(0,)], []])
def test_rows_that_may_have_been_cut_are_no_answer(proof: list[tuple[Any, ...]]) -> None:
    connection = Answering([answer(("a",)), answer(*proof)])
    reply = Reply(connection, 0.0, lambda results: results, has_proof=True)
    with pytest.raises(ShardUnavailable, match="sql_select_limit is"):
        reply.get()
    assert connection.is_closed


def test_a_transfer_that_did_not_fit_is_no_answer(connection: Answering) -> None:
    with pytest.raises(ShardUnavailable, match="max_allowed_packet is 131072"):
        stored_of(connection, answer((None,)))
