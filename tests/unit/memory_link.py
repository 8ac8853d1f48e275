"""A ledger group in memory, for tests of who reads its books: what it has, and a link to it."""

from typing import Any, NamedTuple

from eventstore.rows import place
from eventstore.wire import questions as ask
from eventstore.wire.values import decode, encode
from ledger.chain import first_link
from ledger.decide import decide
from ledger.errors import Bug
from ledger.ids import slot_of_transfer, transfer_id
from ledger.model import Account, Entry, Posting, Refusal, Transfer

SHARD = "g1"
BEGIN_US = 1_700_000_000_000_000
SECOND_US = 1_000_000


class Kept(NamedTuple):
    """All that a group has, at one frame."""

    at: ask.At
    accounts: list[Account]
    entries: list[Entry]
    booked: list[ask.Booked]


class World:
    """What a group has, and its frames: one for each change."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.entries: dict[tuple[str, int], Entry] = {}
        self.booked: list[ask.Booked] = []
        self.at = ask.At(0, BEGIN_US)
        # So far the node's clock is behind the one of its frames.
        self.behind_us = 0

    def frame(self) -> ask.At:
        self.at = ask.At(self.at.seq + 1, self.at.time_us + SECOND_US)
        return self.at

    def open(self, id_: str, limit: int | None = 0) -> None:
        chain = first_link(id_, "EUR")
        self.accounts[id_] = Account(id_, "EUR", 0, limit, "open", 0, self.frame().time_us, chain)

    def move(self, source: str, destination: str, amount: int) -> str:
        at = self.frame()
        id_, key = transfer_id(source, f"key-{at.seq}"), f"key-{at.seq}"
        wish = Transfer(id_, key, source, destination, amount, "EUR", None, "saga", at.time_us)
        (outcome,), changed = decide(self.accounts, [wish], at.time_us)
        self.accounts |= changed
        if isinstance(outcome, Posting):
            self.entries |= {(entry.account, entry.number): entry for entry in outcome}
        reason = outcome.reason.value if isinstance(outcome, Refusal) else None
        self.booked.append(ask.Booked(place(at.seq, 0), wish, reason, at.time_us))
        return id_

    def kept(self) -> Kept:
        accounts = [self.accounts[id_] for id_ in sorted(self.accounts)]
        entries = [self.entries[key] for key in sorted(self.entries)]
        return Kept(self.at, accounts, entries, list(self.booked))


class MemoryLink:
    """Answers as a node and its read side do, over no wire; pages have at most `page_max`."""

    shard = SHARD

    def __init__(self, world: World, page_max: int = 10**9) -> None:
        self.world, self.page_max = world, page_max
        self.opened: list[Kept] = []
        self.is_closed = False
        self.asked_min_seq = -1
        self.fails_with: Exception | None = None

    def close(self) -> None:
        self.is_closed = True

    def answerable(self, deadline: float) -> ask.At:
        return self.world.at

    def ask_node(self, question: ask.NodeQuestion, kind: type[Any], deadline: float) -> Any:
        return decode(encode(self._node(question)), kind)

    def ask_reads(self, question: ask.ReadQuestion, kind: type[Any], deadline: float) -> Any:
        assert not self.is_closed, "it would connect anew"
        if self.fails_with:
            raise self.fails_with
        return decode(encode(self._reads(question)), kind)

    def _node(self, question: ask.NodeQuestion) -> Any:
        match question:
            case ask.Barrier():
                return self.world.frame()
            case ask.Describe():
                now, nothing = self.world.at.time_us - self.world.behind_us, [0] * 5
                return ask.Description(
                    "1", 1, self.world.at, now, *nothing[:4], 0.0, *nothing[:2], 0, 0
                )
            case ask.Find(transfers=ids):
                if any(slot_of_transfer(id_) is None for id_ in ids):
                    raise Bug("a node answers so to what is no id")
                found = {
                    one.transfer.id: ask.First(one.transfer, one.reason, "", self.world.at)
                    for one in self.world.booked
                    if one.transfer.id in ids
                }
                return ask.Finding(self.world.at, found)
        raise AssertionError(question)

    def _reads(self, question: ask.ReadQuestion) -> Any:
        match question:
            case ask.OpenBooks(min_seq=seq):
                self.asked_min_seq = seq
                self.opened.append(self.world.kept())
                return ask.BooksAreOpen(self.world.at, len(self.opened) - 1)
            case ask.AccountsPage(books=number, after=after, limit=limit):
                return self._page([a for a in self.opened[number].accounts if a.id > after], limit)
            case ask.EntriesPage(books=number, after=after, limit=limit):
                return self._page(
                    [
                        entry
                        for entry in self.opened[number].entries
                        if (entry.account, entry.number) > after
                        and question.account in (None, entry.account)
                        and (question.since is None or question.since <= entry.stamp)
                        and (question.until is None or entry.stamp < question.until)
                    ],
                    limit,
                )
            case ask.TransfersPage(books=number, after=after, limit=limit):
                return self._page([b for b in self.opened[number].booked if b.place > after], limit)
        raise AssertionError(question)

    def _page(self, items: list[Any], limit: int) -> list[Any]:
        return items[: min(limit, self.page_max)]


def bank() -> World:
    """Three accounts and four transfers, one of which was refused."""
    world = World()
    world.open("bank", None)
    for name in ("alice", "bob"):
        world.open(name)
    world.move("bank", "alice", 100)
    world.move("alice", "bob", 30)
    world.move("bob", "alice", 31)
    world.move("bob", "bank", 5)
    return world
