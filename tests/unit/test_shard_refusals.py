"""What becomes of transfers that a shard has refused, and what their clients hear."""

from coordinator.engine.shard_refusals import after_too_much, in_smaller_groups, note_what_blocks
from coordinator.engine.tickets import NotExecuted, NotExecutedReason, Ticket
from shard_client.errors import ShardUnavailable, SlotMoved, StatementRefused, TooLarge, TryAgain
from shard_client.xid import Gtrid
from tests.unit.tickets import queue, ticket

GTRID = Gtrid("c", "s1", "me", 1, 1)


def waiting(count: int, *shards: str) -> list[Ticket]:
    made = [ticket(f"{index}a", f"{index}b") for index in range(count)]
    for one in made:
        one.shards = (shards[0], shards[-1])
    return made


def test_what_was_refused_together_runs_in_smaller_groups() -> None:
    tickets = waiting(9, "s1")
    refused = StatementRefused("s1", "a check fails", code=3819)
    assert in_smaller_groups(queue(), GTRID, tickets, refused) == tickets
    assert {one.limit for one in tickets} == {4}
    assert {one.answer for one in tickets} == {None}


def test_what_was_refused_alone_is_answered() -> None:
    for error, reason in (
        (StatementRefused("s1", "a check fails"), NotExecutedReason.INTERNAL_ERROR),
        (TooLarge("s1", "beyond max_allowed_packet"), NotExecutedReason.SHARD_UNAVAILABLE),
    ):
        tickets, q = waiting(1, "s1"), queue()
        q.put(tickets)
        assert in_smaller_groups(q, GTRID, tickets, error) == []
        answer = tickets[0].answer
        assert isinstance(answer, NotExecuted)
        assert answer.reason is reason
        assert error.text in answer.detail
        assert "nothing was written" in answer.detail


def test_who_asked_too_much_of_a_shard_asks_for_less_there() -> None:
    there, elsewhere = waiting(4, "s1", "s2"), waiting(3, "s1")
    lost = {"s2": TooLarge("s2", "beyond max_allowed_packet"), "s1": TryAgain("s1", "a lock")}
    again = after_too_much(queue(), GTRID, there + elsewhere, lost)
    assert sorted(map(id, again)) == sorted(map(id, there + elsewhere))
    assert {one.limit for one in there} == {2}
    assert {one.limit for one in elsewhere} == {1 << 30}
    assert after_too_much(queue(), GTRID, elsewhere, lost) == elsewhere


def test_who_waits_for_a_shard_hears_of_it_and_who_waits_for_a_lock_does_not() -> None:
    (one,) = waiting(1, "s1", "s2")
    note_what_blocks(
        one, {"s2": ShardUnavailable("s2", "SELECT is too big", code=1104)}, one.shards
    )
    assert one.blocked_by is not None
    assert one.blocked_by.reason is NotExecutedReason.SHARD_UNAVAILABLE
    assert "shard s2: SELECT is too big (error 1104)" in one.blocked_by.detail
    note_what_blocks(one, {"s3": ShardUnavailable("s3", "it is away")}, one.shards)
    assert one.blocked_by is None
    note_what_blocks(one, {"s1": SlotMoved("s1", "slot 7 is not here")}, one.shards)
    assert one.blocked_by is not None
    note_what_blocks(one, {"s1": TryAgain("s1", "lock wait timeout", code=1205)}, one.shards)
    assert one.blocked_by is None
