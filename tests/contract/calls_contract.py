"""What every kind of shard has to keep of `shard_client.node.ShardCalls`, whether transfers are
written to it or decided by it.

A kind joins by a class of its own, whose `ground` is made on a shard of it (see
test_shard_contract.py).
"""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import count

import pytest

from ledger.ids import transfer_id
from ledger.model import Account, Reason, Refusal, Status, Transfer
from shard_client.errors import ClockAhead, NoList, NotYet, ShardError, ShardUnavailable
from shard_client.node import ShardNode
from shard_client.records import AccountState, Since, StoredTransfer, Terms
from tests.cluster import wait_until

HOUR_US = 3600 * 10**6

Nodes = Mapping[str, ShardNode]


def soon() -> float:
    """A deadline that a healthy shard keeps with ease."""
    return time.monotonic() + 5


def now() -> int:
    return time.time_ns() // 1000


class CallsGround(ABC):
    """A shard s1, and accounts on it with names of their own."""

    # Of its transfers.
    protocol: str

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.s1 = nodes["s1"]
        self._prefix = secrets.token_hex(4)
        self._numbers = count()

    def name(self, shard: str = "s1") -> str:
        """The next name of an account on a shard; later names sort behind."""
        return f"{self._prefix}.{next(self._numbers):06d}"

    def open(self, shard: str = "s1", limit: int | None = None) -> str:
        name = self.name(shard)
        self.nodes[shard].reads.open_accounts([Terms(name, "EUR", limit)], now(), soon())
        return name

    def shard_of(self, account: str) -> str:
        return "s1"

    def account(self, name: str) -> Account:
        calls = self.nodes[self.shard_of(name)].reads
        return calls.read_accounts([name], soon())[name].account

    def balance(self, name: str) -> int:
        return self.account(name).balance

    def transfer(self, source: str, destination: str, amount: int = 7) -> Transfer:
        key = f"k{next(self._numbers)}"
        id_ = transfer_id(source, key)
        return Transfer(id_, key, source, destination, amount, "EUR", None, self.protocol, now())

    @abstractmethod
    def commit(self, *transfers: Transfer) -> list[StoredTransfer]:
        """Have transfers within s1 carried out; what is recorded of each."""


def undated(state: AccountState) -> AccountState:
    """An account without the frame that it is of, if there are such: reads are of the newest."""
    return state._replace(as_of=None)


class CallsContract:
    """See the module."""

    # --- transfers --------------------------------------------------------------------------

    def test_transfers_are_found(self, ground: CallsGround) -> None:
        source, destination = ground.open(), ground.open()
        asked = [ground.transfer(source, destination), ground.transfer(source, source)]
        known = ground.commit(*asked)
        assert [each.status for each in known] == ["committed", "rejected"]
        assert [each.reason for each in known] == [None, Reason.SAME_ACCOUNT]
        ids = [transfer.id for transfer in asked]
        unknown = ground.transfer(source, destination).id
        assert ground.s1.reads.find_transfers([unknown], soon()) == {}
        found = ground.s1.reads.find_transfers([*ids, unknown], soon())
        assert found == dict(zip(ids, known, strict=True))
        assert (ground.balance(source), ground.balance(destination)) == (-7, 7)

    # --- accounts ---------------------------------------------------------------------------

    def test_accounts_are_opened_once(self, ground: CallsGround) -> None:
        one, two = ground.name(), ground.name()
        calls = ground.s1.reads
        first, new = calls.open_accounts([Terms(one, "EUR", 5)], now(), soon())
        assert new == {one}
        again, new = calls.open_accounts(
            [Terms(one, "USD", None), Terms(two, "EUR", None)], now(), soon()
        )
        assert new == {two}
        assert undated(again[one]) == undated(first[one])
        found = calls.read_accounts([one, two, ground.name()], soon())
        assert {name: undated(state) for name, state in found.items()} == {
            name: undated(state) for name, state in again.items()
        }

    def test_the_status_of_an_account(self, ground: CallsGround) -> None:
        calls, name, other = ground.s1.reads, ground.open(), ground.open()
        assert calls.change_status(ground.name(), Status.FROZEN, now(), soon()) is None
        changed = calls.change_status(name, Status.FROZEN, now(), soon())
        again = calls.change_status(name, Status.FROZEN, now(), soon())
        assert isinstance(changed, AccountState)
        assert isinstance(again, AccountState)
        assert undated(again) == undated(changed)
        assert ground.account(name).status == Status.FROZEN
        calls.change_status(name, Status.OPEN, now(), soon())
        ground.commit(ground.transfer(name, other))
        assert isinstance(calls.change_status(other, Status.CLOSED, now(), soon()), Refusal)
        assert ground.account(other).status == Status.OPEN

    def test_entries(self, ground: CallsGround) -> None:
        source, destination = ground.open(), ground.open()
        transfers = [ground.transfer(source, destination, amount) for amount in (1, 2, 3)]
        for transfer in transfers:
            ground.commit(transfer)
        calls = ground.s1.reads
        found = calls.entries(source, None, 9, soon(), newest_first=False)
        assert found is not None
        entries = found.entries
        assert [(e.number, e.amount, e.balance) for e in entries] == [
            (1, -1, -1),
            (2, -2, -3),
            (3, -3, -6),
        ]
        for after, limit, newest_first, page in (
            (1, 1, False, entries[1:2]),
            (3, 9, True, entries[1::-1]),
        ):
            found = calls.entries(source, after, limit, soon(), newest_first=newest_first)
            assert found is not None
            assert found.entries == page
        assert calls.entries(ground.name(), None, 9, soon(), newest_first=True) is None
        id_, stamp = transfers[1].id, entries[1].stamp
        assert calls.entry_of(source, id_, stamp, soon()) == entries[1]
        assert calls.entry_of(source, id_, entries[0].stamp, soon()) is None
        assert calls.entries_of(source, id_, {entries[0].stamp}, soon()) == [entries[1]]

    def test_a_balance_in_the_past_is_final(self, ground: CallsGround) -> None:
        source, destination = ground.open(), ground.open()
        before = now()
        ground.commit(ground.transfer(source, destination))
        calls = ground.s1.reads
        assert calls.balance_at(ground.name(), before, soon()) is None
        was = calls.balance_at(source, before, soon())
        assert was is not None
        assert was[:2] == (ground.account(source), 0)
        at = now()
        for _ in range(2):
            found = calls.balance_at(source, at, soon())
            assert found is not None
            assert found[1] == -7
            # What comes now comes later.
            ground.commit(ground.transfer(source, destination))
        assert ground.balance(source) == -21

    def test_a_time_to_come_is_refused(self, ground: CallsGround) -> None:
        with pytest.raises(ClockAhead):
            ground.s1.reads.balance_at(ground.open(), now() + HOUR_US, soon())

    def test_a_read_says_which_frame_it_has_seen_and_waits_for_one(
        self, ground: CallsGround
    ) -> None:
        """On shards that keep a list; others say that they keep none."""
        source, destination = ground.open(), ground.open()
        (stored,) = ground.commit(ground.transfer(source, destination))
        calls = ground.s1.reads
        as_of = calls.read_accounts([source], soon())[source].as_of
        assert (as_of is None) == (stored.seq is None)
        for ask in (
            lambda since, by: calls.read_accounts([source], by, since)[source],
            lambda since, by: calls.entries(source, None, 9, by, newest_first=True, since=since),
            lambda since, by: calls.balance_at(source, stored.decided_at, by, since),
        ):
            if stored.seq is None:
                with pytest.raises(NoList):
                    ask(Since(1), soon())
                continue
            found = ask(Since(stored.seq), soon())
            assert found is not None
            assert found.as_of is not None
            assert found.as_of.seq >= stored.seq
            assert found.as_of.stamp >= stored.decided_at
            with pytest.raises(NotYet, match=f"frame {10**12} "):
                ask(Since(10**12), time.monotonic() + 1.2)

    # --- whether it can be used -------------------------------------------------------------

    def test_what_is_given_up_is_not_asked(self, ground: CallsGround) -> None:
        name = ground.open()
        ground.s1.give_up(ShardUnavailable("s1", "on purpose"))
        assert (ground.s1.is_available, ground.s1.unavailable_because) == (False, "on purpose")
        with pytest.raises(ShardUnavailable):
            ground.s1.reads.read_accounts([name], soon())
        self.is_closed(ground)
        wait_until(lambda: admitted(ground.s1), 20, "it is not admitted", every_s=0.2)
        assert ground.balance(name) == 0

    def is_closed(self, ground: CallsGround) -> None:
        """What else is not to be had of a shard that was given up."""


def admitted(node: ShardNode) -> bool:
    try:
        node.admit()
    except ShardError:
        return False
    return True
