"""A read side in plain Python, by the ledger's own functions; lists to read; and all that both can
be asked.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from eventstore.machine.machine import Limits, Machine
from eventstore.reading.keeper import Sizes
from eventstore.reading.side import ReadSide
from eventstore.recent import Recent
from eventstore.segments.chain import link_of
from eventstore.segments.files import Disk, Files
from eventstore.segments.frame import Body, Draft, Frame
from eventstore.segments.reader import Reader
from eventstore.segments.writer import List, begin
from eventstore.wire.questions import At, CurrencySums, Dated
from ledger.chain import first_link
from ledger.decide import change_status, decide
from ledger.ids import transfer_id
from ledger.model import Account, Entry, Posting, Status
from tests.eventstore.groups import GROUP
from tests.unit.eventstore.machine_books import Change, Command, Opening, Wish, pack

# Room for all that a test does: address space is taken for each.
LIMITS = Limits(accounts=1000, transfers=100_000)
# A few frames fill a block.
SMALL = Sizes(block_entries=12, merged_runs=3)
NOW = 1_700_000_000_000_000
# Of more than this some are asked for.
MANY = 40
T = TypeVar("T")


class Lazy(Disk):
    """Real files that are never flushed: nothing here loses its power."""

    def flush(self, file: int) -> None:
        pass

    def flush_folder(self, folder: Path) -> None:
        pass


LAZY = Lazy()


class Model:
    """What the commands that it was given make of accounts and entries."""

    def __init__(self) -> None:
        self.as_of = At(0, 0)
        self.accounts: dict[str, Account] = {}
        self.entries: dict[str, list[Entry]] = {}
        self.created: dict[str, int] = {}
        self.updated: dict[str, int] = {}
        # In their order, with what became of them; those without a source are not known.
        self.transfers: dict[str, tuple[Wish, str | None, At]] = {}

    def apply(self, seq: int, time_us: int, commands: Iterable[Command]) -> None:
        self.as_of = At(seq, time_us)
        for command in commands:
            if isinstance(command, Opening):
                self._open(command, time_us)
            elif isinstance(command, Change):
                self._change(command, time_us)
            else:
                self._transfer(command, time_us)

    def _open(self, command: Opening, now: int) -> None:
        id_, limit, currency = command
        if id_ not in self.accounts:
            chain = first_link(id_, currency)
            self.accounts[id_] = Account(id_, currency, 0, limit, "open", 0, now, chain)
            self.entries[id_], self.created[id_], self.updated[id_] = [], now, now

    def _change(self, command: Change, now: int) -> None:
        account = self.accounts.get(command.account)
        if account is None or change_status(account, command.status):
            return
        if account.status != command.status:
            self.accounts[account.id] = account._replace(status=command.status.value)
            self.updated[account.id] = now

    def _transfer(self, wish: Wish, now: int) -> None:
        transfer = wish.transfer()
        if transfer.id in self.transfers:
            return
        (outcome,), changed = decide(self.accounts, [transfer], now)
        self.accounts |= changed
        if isinstance(outcome, Posting):
            self.transfers[transfer.id] = wish, None, self.as_of
            for entry in outcome:
                self.entries[entry.account].append(entry)
                self.updated[entry.account] = entry.stamp
        elif outcome.is_recorded:
            self.transfers[transfer.id] = wish, outcome.reason.value, self.as_of

    def dated(self, account: str) -> Dated | None:
        if account not in self.accounts:
            return None
        number = list(self.accounts).index(account)
        return Dated(self.accounts[account], self.created[account], self.updated[account], number)

    def balance_at(self, account: str, time_us: int) -> int:
        before = [entry for entry in self.entries[account] if entry.stamp <= time_us]
        return before[-1].balance if before else 0

    def trial_balance(self, time_us: int) -> list[CurrencySums]:
        opened = [a for a in self.accounts.values() if self.created[a.id] <= time_us]
        found = []
        for currency in sorted({account.currency for account in opened}):
            own = [account.id for account in opened if account.currency == currency]
            amounts = [e.amount for id_ in own for e in self.entries[id_] if e.stamp <= time_us]
            debits, credits = (-sum(a for a in amounts if a < 0), sum(a for a in amounts if a > 0))
            had = sum(self.balance_at(id_, time_us) for id_ in own)
            found.append(CurrencySums(currency, len(own), str(debits), str(credits), str(had)))
        return found


class Group:
    """A list on disk, and the model of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        begin(folder, files=LAZY)
        self.folder, self.model, self.time_us = folder, Model(), NOW
        self._list = List.open(folder, GROUP, files=LAZY, room_bytes_min=1000)
        self.machine = new_machine(folder)

    def add(self, commands: Sequence[Command], step_us: int = 10) -> None:
        """A frame of these commands."""
        self.time_us += step_us
        rows, texts = pack(self.machine, commands)
        seq = self.machine.seq + 1
        outcomes = self.machine.apply(self.time_us, seq, rows, texts)
        body = Body(rows, outcomes, texts)
        self._list.append([Draft(seq, self.time_us, 1, 1, 1, 1, body)])
        self._list.flush()
        self.model.apply(seq, self.time_us, commands)

    def close(self) -> None:
        self._list.close()

    def frames(self, start: int = 1) -> Iterator[Frame]:
        return Reader(self.folder, GROUP).read(start, until=self.machine.seq)

    def open(
        self,
        kept: Path,
        *,
        sizes: Sizes = SMALL,
        files: Files = LAZY,
        machine: Machine | None = None,
    ) -> ReadSide:
        """The read side in a folder, which has seen what it was closed with, or nothing."""
        machine = machine or new_machine(self.folder)
        where = kept, self.folder, GROUP, machine
        return ReadSide.open(*where, accounts_max=1000, sizes=sizes, files=files)

    def follow(self, side: ReadSide) -> None:
        """See all frames that there are."""
        for frame in self.frames(side.next_seq):
            side.apply(frame)


def new_machine(folder: Path) -> Machine:
    return Machine(bytes(16), Recent(Reader(folder, GROUP)).command, LIMITS)


def random_frames(chance: random.Random, frames: int, accounts: int = 6) -> list[list[Command]]:
    """Openings first, then whatever may come."""
    names = [f"account-{n}" if n % 2 else f"{{{n}}}" for n in range(accounts)]

    def command() -> Command:
        kind = chance.random()
        if kind < 0.05:
            limit, currency = chance.choice([0, None, 500]), chance.choice(["EUR", "USD"])
            return Opening(chance.choice([*names, "late-1", "late-2"]), limit, currency)
        if kind < 0.15:
            return Change(chance.choice(names), chance.choice(list(Status)), chance.random() < 0.5)
        source, destination = chance.choice([*names, "absent"]), chance.choice([*names, "absent"])
        amount = chance.choice([1, 7, 400, 2**62])
        by_name = chance.random() < 0.5
        return Wish(source, destination, amount, f"{chance.randrange(60)}", by_name=by_name)

    openings = [Opening(name, chance.choice([0, None, None, 500])) for name in names]
    rest = [[command() for _ in range(chance.randrange(9))] for _ in range(frames)]
    return [openings, *rest]


def check(side: ReadSide, model: Model, limits: Sequence[int] = (1, 3, 1000)) -> None:
    """Whether a read side answers everything as the model does."""
    ids = [*model.accounts, "nobody"]
    found = side.accounts(ids)
    assert found.as_of == model.as_of == side.as_of
    assert found.accounts == [model.dated(account) for account in ids]
    for account in model.accounts:
        _check_pages(side, model, account, limits)
        _check_times(side, model, account)
    assert side.entries("nobody", None, 1).entries is None
    assert side.balance_at("nobody", model.as_of.time_us).account is None
    _check_trial_balances(side, model)
    some = _some(model.transfers)
    for transfer in [*some, transfer_id("nobody", "key"), "no id"]:
        for account in model.accounts:
            of_it = [entry for entry in model.entries[account] if entry.transfer == transfer]
            assert side.entries_of(account, transfer).entries == of_it


def _check_trial_balances(side: ReadSide, model: Model) -> None:
    """Of the last moment, and of some before it: just before, at and after an entry."""
    stamps = [entry.stamp for entries in model.entries.values() for entry in entries]
    chosen = random.Random(len(stamps)).sample(stamps, min(2, len(stamps)))
    times = {stamp + more for stamp in chosen for more in (-1, 0, 1)}
    for time_us in (None, -1, 0, *times):
        if (time_us or 0) <= model.as_of.time_us:
            found = side.trial_balance(time_us)
            assert found.as_of == model.as_of
            assert found.time_us == (model.as_of.time_us if time_us is None else time_us)
            assert found.currencies == model.trial_balance(found.time_us)


def _some(all_: Iterable[T]) -> list[T]:
    """All, or of many some, in their order."""
    found = list(all_)
    at = sorted(random.Random(len(found)).sample(range(len(found)), min(len(found), MANY)))
    return [found[index] for index in at]


def _check_pages(side: ReadSide, model: Model, account: str, limits: Sequence[int]) -> None:
    entries = model.entries[account]
    for limit in limits:
        for newest_first in (False, True):
            expected, found = entries[::-1] if newest_first else entries, []
            page = side.entries(account, None, limit, newest_first).entries
            while page:
                assert len(page) <= limit
                found += page
                page = side.entries(account, page[-1].number, limit, newest_first).entries
            assert found == expected


def _check_times(side: ReadSide, model: Model, account: str) -> None:
    some = _some(model.entries[account])
    times = {entry.stamp + more for entry in some for more in (-1, 0, 1)}
    for time_us in times | {0, NOW, model.as_of.time_us}:
        if time_us <= model.as_of.time_us:
            was = side.balance_at(account, time_us)
            assert was.account == model.accounts[account]
            assert was.balance == model.balance_at(account, time_us)


def test_what_the_model_makes_is_what_the_machine_makes(tmp_path: Path) -> None:
    group = Group(tmp_path / "list")
    for commands in random_frames(random.Random(1), 40):
        group.add(commands)
    assert sum(map(len, group.model.entries.values())) > 50
    assert {status.status for status in group.model.accounts.values()} >= {"open", "frozen"}
    for account in group.model.accounts.values():
        number = group.machine.number_of(account.id)
        assert number is not None
        assert group.machine.account(number).account == account._replace(chain="")
    assert [link_of(frame.header).seq for frame in group.frames()] == list(range(1, 42))
    group.close()
