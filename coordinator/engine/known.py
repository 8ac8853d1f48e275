"""The answers to keys that were seen before: once for all protocols, and for what the API looks up.

What a lock packet has found of an earlier request is an outcome that was seen. It counts when it
is there for good (rule R2): where a commit is seen before it is safe, only a session that has
written after it has read proves it. The session that held the locks is another by now, so every
outcome is read once more, on every kind of server, and has to be the same.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from coordinator.engine.scheduler import Queue
from coordinator.engine.tickets import Answer, Refused, Settled, Ticket, in_use
from coordinator.shards.registry import Shards
from ledger.decide import refuse_reuse
from ledger.model import Transfer
from shard_client.errors import ShardError
from shard_client.records import PENDING, StoredTransfer


def answer_known(
    queue: Queue,
    shards: Shards,
    known: Iterable[tuple[Ticket, StoredTransfer]],
    deadline: Callable[[], float],
) -> list[Ticket]:
    """Answer tickets by what was found of their transfers; gives those that have to run again.

    If a shard cannot prove all that was found on it, or not until its `deadline`, nothing that was
    found there is answered: it may have lost it.
    """
    by_shard: dict[str, list[tuple[Ticket, StoredTransfer]]] = defaultdict(list)
    for ticket, stored in known:
        by_shard[ticket.shards[0]].append((ticket, stored))
    again: list[Ticket] = []
    for shard, found in by_shard.items():
        if _are_durable(shards, shard, [stored for _, stored in found], deadline()):
            queue.settle(
                (t, known_answer(t.asked, s, is_replay=s.gtrid != t.gtrid)) for t, s in found
            )
        else:
            again += [ticket for ticket, _ in found]
    return again


def _are_durable(
    shards: Shards, shard: str, found: Sequence[StoredTransfer], deadline: float
) -> bool:
    """Whether outcomes that were found on a shard are there for good."""
    # What is pending is known for its body alone: it is another one than was asked for.
    settled = [stored for stored in found if stored.status != PENDING]
    if not settled:
        return True
    try:
        ids = [stored.transfer.id for stored in settled]
        proven = shards[shard].recovery.find_transfers(ids, deadline)
    except ShardError:
        return False
    return all(proven.get(stored.transfer.id) == stored for stored in settled)


def known_answer(asked: Transfer, stored: StoredTransfer, *, is_replay: bool) -> Answer:
    """The answer to a request of whose key this is recorded: an outcome for good, or that another
    body is pending.
    """
    if stored.status == PENDING:
        return in_use(asked)
    refusal = refuse_reuse(stored.transfer, asked)
    return Refused(refusal) if refusal else Settled(stored, is_replay)
