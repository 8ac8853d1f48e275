"""A ledger group is observed over real sockets: its node, and a read side that comes and goes."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from coordinator.shards.group.node import LedgerGroup, Observed
from eventstore.server.handling import Asker, Handlers
from eventstore.server.server import Server
from eventstore.wire.proofs import Hello
from eventstore.wire.questions import (
    At,
    Barrier,
    Describe,
    Description,
    Lag,
    LagIs,
    NodeQuestion,
    ReadQuestion,
)
from shard_client.shard_map import ShardAddress

HOST, SECRET, CLUSTER = "127.0.0.1", "a secret of tests", "tests"
NODE = Description("1", 1, At(7, 70), 71, 2, 3, 6, 5, 0.5, 4, 4096, 1 << 30, 1 << 28)
READS = LagIs(At(6, 60), At(7, 70), 6, 512, At(5, 50))
Answer = Callable[[Any], Any]


def server(port: int, questions: Any, answer: Answer, reads: tuple[str, int] | None) -> Server:
    def question(asked: Any, asker: Asker) -> Any:
        return answer(asked)

    hello = Hello(CLUSTER, "00000000-0000-0000-0000-000000000001", 0, 1, reads)
    return Server((HOST, port), SECRET.encode(), hello, Handlers(questions, question))


def of_node(asked: Any) -> Any:
    return {Describe: NODE, Barrier: NODE.answerable}[type(asked)]


def of_reads(asked: Any) -> Any:
    return {Lag: READS}[type(asked)]


@pytest.fixture
def place() -> Iterator[tuple[LedgerGroup, int]]:
    """A group in use whose read side is to listen at a port, and does not yet."""
    with ExitStack() as stack:
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        node = stack.enter_context(server(0, NodeQuestion, of_node, (HOST, port)))
        address = ShardAddress.parse("ledger://{}:{}".format(*node.address))
        group = LedgerGroup("s1", address, CLUSTER, SECRET, 0.3)
        stack.callback(group.close)
        group.admit()
        yield group, port


def test_both_are_observed_whenever_they_answer(place: tuple[LedgerGroup, int]) -> None:
    group, port = place
    for _ in range(2):
        assert group.observe() == Observed(NODE, None)
        assert group.lag is None
        with server(port, ReadQuestion, of_reads, None):
            assert group.observe() == Observed(NODE, READS)
            assert group.lag == READS
    assert group.is_available


def test_a_mute_read_side_takes_its_time_limit_and_not_the_group(
    place: tuple[LedgerGroup, int],
) -> None:
    group, port = place
    # It lets in whoever comes, as the kernel does for a process that is frozen.
    with socket.create_server((HOST, port)):
        assert group.observe() == Observed(NODE, None)
    assert group.is_available


def test_nothing_is_observed_of_a_group_that_was_given_up(place: tuple[LedgerGroup, int]) -> None:
    group, port = place
    with server(port, ReadQuestion, of_reads, None):
        group.close()
        assert group.observe() == Observed(None, READS)
        group.admit()
        assert group.observe() == Observed(NODE, READS)
