"""Audits and exports of a cluster whose only shard is a ledger group, which is in memory."""

import pickle
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import coordinator.auditing.audit
from coordinator.auditing import places
from coordinator.auditing.audit import AuditResult, audit
from coordinator.auditing.export import ExportedEntry, NoSuchAccount, NotSettled, exported
from coordinator.auditing.history import account_history, accounts_ahead
from coordinator.auditing.places import Place
from coordinator.settings import EventStore, Settings
from coordinator.shards.group import books as group_books
from coordinator.shards.group.books import GroupAuditCalls
from eventstore.server.handling import Handlers
from eventstore.wire import questions as ask
from shard_client.errors import ShardUnavailable, TimedOut
from shard_client.records import STAMP_AHEAD_MAX_US
from shard_client.shard_map import ShardAddress, ShardKind, ShardMap
from tandem.cli.audit import audit as audit_command
from tandem.cli.export import export as export_command
from tests.eventstore.serving import served
from tests.unit.memory_link import BEGIN_US, SECOND_US, SHARD, MemoryLink, World, bank

# --- the audit ------------------------------------------------------------------------------


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """The only shard of a cluster."""
    made = bank()
    where = ShardAddress("127.0.0.1", 1, "", kind=ShardKind.LEDGER)
    monkeypatch.setattr(places, "read_map", lambda _: ShardMap.evenly(1, {SHARD: where}))
    monkeypatch.setattr(group_books, "_connected", lambda *_: MemoryLink(made, page_max=3))
    monkeypatch.setattr(coordinator.auditing.audit, "_SETTLE_S", 0.0)
    monkeypatch.setattr(coordinator.auditing.audit, "_PAUSE_S", 0.0)
    return made


def audited(**how: Any) -> AuditResult:
    return audit(Settings(), lambda _: None, **how)


def rules(**how: Any) -> set[str]:
    return {violation.rule for violation in audited(**how).violations}


def test_an_audit_of_a_group_counts_all_and_finds_nothing(world: World) -> None:
    found = audited()
    assert found.violations == []
    assert found.summary == {"accounts": 3, "entries": 6, "transfers": 4, "currencies": 1}


def test_each_way_to_be_wrong_is_named(world: World) -> None:
    good = dict(world.accounts), dict(world.entries), list(world.booked)

    def restored() -> None:
        world.accounts, world.entries, world.booked = dict(good[0]), dict(good[1]), list(good[2])

    world.accounts["bob"] = world.accounts["bob"]._replace(balance=24)
    assert rules() == {"balance-is-sum-of-entries", "money-is-conserved"}
    restored()
    world.accounts["bob"] = world.accounts["bob"]._replace(held=1)
    assert rules() == {"held-as-phases-say"}
    restored()
    entry = world.entries["alice", 2]
    world.entries["alice", 2] = entry._replace(counterparty="bank")
    assert rules() == {"entry-as-written", "all-entries-or-none"}
    restored()
    del world.booked[0]
    assert rules() == {"entry-has-transfer"}
    restored()
    refused = next(index for index, one in enumerate(world.booked) if one.reason)
    one = world.booked[refused]
    world.booked[refused] = ask.Booked(one.place, one.transfer, None, one.time_us)
    assert rules() == {"all-entries-or-none"}
    restored()
    del world.accounts["alice"]
    assert "entry-has-account" in rules()


def test_what_was_decided_meanwhile_is_no_violation(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part of an audit opens books of its own; the list has grown in between."""
    page = MemoryLink._page

    def busy(self: MemoryLink, items: list[Any], limit: int) -> list[Any]:
        world.move("bank", "bob", 1)
        return page(self, items, limit)

    monkeypatch.setattr(MemoryLink, "_page", busy)
    assert audited().violations == []


def test_anchors_of_a_group(world: World, tmp_path: Path) -> None:
    file = tmp_path / "anchors.jsonl"
    found = audited(anchor=file)
    assert found.anchors is not None
    assert found.anchors.accounts == 3
    assert audited(against=file).violations == []
    anew = World()
    for name, limit in (("bank", None), ("alice", 0), ("bob", 0)):
        anew.open(name, limit)
    anew.move("bank", "alice", 99)
    anew.move("alice", "bob", 30)
    anew.move("bob", "bank", 5)
    world.accounts, world.entries, world.booked = anew.accounts, anew.entries, anew.booked
    assert rules() == set()
    assert rules(against=file) == {"chain-as-anchored"}


def test_one_account_and_those_stamped_ahead(world: World) -> None:
    with account_history(Settings(), "alice") as history:
        assert history is not None
        checked = list(history.entries)
        assert [one.entry.amount for one in checked] == [100, -30]
        assert [one.violations for one in checked] + history.end == [[], []]
        assert (history.account.balance, history.unfinished, history.tried) == (70, [], [])
    with account_history(Settings(), "nobody") as history:
        assert history is None
    world.behind_us = STAMP_AHEAD_MAX_US
    assert accounts_ahead(Settings()) == []
    world.behind_us += 1
    floors = {id_: a.stamp_floor for id_, a in world.accounts.items()}
    last = max(floors.values())
    assert accounts_ahead(Settings()) == sorted(
        (id_, SHARD, floor) for id_, floor in floors.items() if floor == last
    )


# --- the export -----------------------------------------------------------------------------


def export_of(stamps: range, account: str | None = None) -> list[ExportedEntry]:
    with exported(Settings(), stamps, account, lambda _: None) as entries:
        return list(entries)


def test_a_range_of_a_group_is_closed_by_a_frame_that_is_later(world: World) -> None:
    end = world.at.time_us + 1
    world.at = ask.At(world.at.seq, end + 15 * SECOND_US)
    before, known = world.at.seq, sorted(world.entries)
    first = export_of(range(BEGIN_US, end))
    assert world.at.seq == before + 1
    world.move("bank", "bob", 1)
    assert export_of(range(BEGIN_US, end)) == first
    assert [(entry.account, entry.number) for entry in first] == known
    assert {entry.currency for entry in first} == {"EUR"}
    alice = [entry for entry in first if entry.account == "alice"]
    assert export_of(range(BEGIN_US, end), "alice") == alice
    with pytest.raises(NoSuchAccount):
        export_of(range(BEGIN_US, end), "nobody")


def test_a_range_that_ends_too_late_makes_no_frame(world: World) -> None:
    before = world.at
    with pytest.raises(NotSettled, match=SHARD):
        export_of(range(BEGIN_US, world.at.time_us - 14 * SECOND_US))
    assert world.at == before


def test_a_range_that_no_frame_closes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    link = MemoryLink(world)
    calls = GroupAuditCalls(link)  # type: ignore[arg-type]
    late = world.at.time_us + 2 * SECOND_US
    with pytest.raises(ShardUnavailable, match="set back"):
        calls.raise_floors(None, "", late, 0.0)
    assert calls.raise_floors(None, "", late, 0.0) is None

    def silent(*_: Any) -> Any:
        raise TimedOut(SHARD, "no answer in time")

    monkeypatch.setattr(link, "ask_node", silent)
    with pytest.raises(ShardUnavailable, match=r"cannot be closed.*no answer in time"):
        calls.raise_floors(None, "", late, 0.0)


# --- where it is ----------------------------------------------------------------------------


def test_a_place_passes_from_process_to_process() -> None:
    where = ShardAddress("127.0.0.1", 1, "", kind=ShardKind.LEDGER)
    made = Place(Settings(eventstore=EventStore("secret")), SHARD, where)
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.fixture
def nobody_there() -> Iterator[ShardAddress]:
    """An address at which nobody answers."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield ShardAddress("127.0.0.1", taken.getsockname()[1], "", kind=ShardKind.LEDGER)


def test_a_node_that_is_not_there_looks_like_a_server_that_is_not(
    nobody_there: ShardAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "read_map", lambda _: ShardMap.evenly(1, {SHARD: nobody_there}))
    folder = ["--data-dir", str(tmp_path)]
    span = ["--from", "2023-01-01T00:00:00Z", "--to", "2023-01-02T00:00:00Z"]
    for command, arguments in (
        (audit_command, []),
        (audit_command, ["--account", "alice"]),
        (audit_command, ["--ahead"]),
        (audit_command, ["--anchor", str(tmp_path / "anchors")]),
        (export_command, span),
    ):
        told = CliRunner().invoke(command, [*arguments, *folder])
        assert told.exit_code == 3, told.output
        assert f"shard {SHARD}: 127.0.0.1:{nobody_there.port}" in told.output


def test_another_secret_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Handlers(ask.NodeQuestion, lambda *_: ask.At(0, 0))) as node:
        host, port = node.address
        where = ShardAddress(host, port, "", kind=ShardKind.LEDGER)
        monkeypatch.setattr(places, "read_map", lambda _: ShardMap.evenly(1, {SHARD: where}))
        wrong = Settings(eventstore=EventStore("not known to the other"))
        with pytest.raises(ShardUnavailable, match=f"shard {SHARD}: .*secret"):
            audit(wrong, lambda _: None)
