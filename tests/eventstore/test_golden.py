"""Lists that older versions have written say today what they said then (rule E4): to `verify`, to a
node that starts, to a snapshot's machine, to the read side, and to whoever reads events.

The digest of the state is compared where today's machine has the version that wrote the list: a
newer one may sum up the same state in another way. What it decided and what accounts have is
compared with every version.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from eventstore.machine.machine import VERSION, Machine
from eventstore.node.node import Node
from eventstore.rows import Code, Kind
from eventstore.segments.chain import link_of
from eventstore.segments.reader import Reader
from eventstore.snapshots.names import FOLDER, snapshot_seqs
from eventstore.snapshots.reader import in_list, newest
from eventstore.verify import replay, verify
from tandem.cli.eventstore import eventstore
from tests.eventstore.golden import make
from tests.eventstore.golden.make import GROUP, new_machine
from tests.eventstore.groups import PATIENCE_S, codes, transfers, wish

_KEPT = Path(__file__).parent / "golden"
# What version 1 knows.
_CODES, _KINDS = range(Code.NOT_EMPTY + 1), (Kind.OPEN, Kind.STATUS, Kind.TRANSFER)
# What the machine itself knows of accounts: chains are the read side's.
_OF_MACHINE = ("id", "currency", "balance", "overdraft_limit", "status", "entry_count", "held")


@pytest.fixture(params=sorted(path.name for path in _KEPT.glob("v*")))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a golden list."""
    return Path(shutil.copytree(_KEPT / request.param, tmp_path / "list"))


@pytest.fixture
def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return found


def check_state(machine: Machine, expected: dict[str, Any]) -> None:
    """The machine is where it was after the last frame."""
    assert machine.seq == expected["last"]["seq"]
    assert of_machine(machine, _OF_MACHINE) == of_accounts(expected, _OF_MACHINE)
    if expected["machine"] == VERSION:
        assert machine.digest().hex() == expected["state"]


def of_machine(machine: Machine, names: tuple[str, ...]) -> list[list[Any]]:
    accounts = [machine.account(number).account for number in range(len(machine))]
    return [[getattr(account, name) for name in names] for account in accounts]


def of_accounts(expected: dict[str, Any], names: tuple[str, ...]) -> list[list[Any]]:
    return [[account[name] for name in names] for account in expected["accounts"]]


def test_it_has_all_that_there_was_in_its_version(folder: Path) -> None:
    frames = list(make.frames_of(folder))
    rows = np.concatenate([frame.body.commands for frame in frames])
    assert set(np.concatenate([f.body.outcomes.codes for f in frames]).tolist()) >= {*_CODES}
    assert {*rows["kind"].tolist()} >= {*_KINDS}
    assert {*rows["protocol"].tolist()} == {0, 1, 2, 3}
    is_named = rows["source"][rows["kind"] == Kind.TRANSFER] == 2**32 - 1
    assert is_named.any()
    assert not is_named.all()
    assert any("世界".encode() in frame.body.texts for frame in frames)
    assert any(not len(frame.body.commands) for frame in frames)
    assert len({frame.header.epoch for frame in frames}) > 2
    assert len(list(folder.glob("*.segment"))) > 2
    assert len(list((folder / FOLDER).glob("*.snapshot"))) == 1


def test_verify(folder: Path, expected: dict[str, Any]) -> None:
    machines: list[Machine] = []

    def started() -> Machine:
        machines.append(new_machine(folder))
        return machines[-1]

    found = verify(folder, GROUP, started, id)
    assert found.last.hash.hex() == expected["last"]["hash"]
    check_state(machines[0], expected)
    told = CliRunner().invoke(eventstore, ["verify", str(folder), "--json"])
    assert told.exit_code == 0, told.output
    shown = json.loads(told.stdout)
    assert (shown["frames"], shown["last_hash"]) == (found.frames, found.last.hash.hex())
    if expected["machine"] == VERSION:
        assert (shown["state_digest"], shown["snapshots"]) == (expected["state"], 1)


def test_outcomes_and_events_of_each_frame(folder: Path, expected: dict[str, Any]) -> None:
    machine = new_machine(folder)
    for frame, was in zip(make.frames_of(folder), expected["frames"], strict=True):
        replay(frame, machine)
        assert (frame.header.seq, make.told(frame, machine)) == (machine.seq, was)
    assert sum(frame["events"] for frame in expected["frames"]) == expected["events"]


def test_a_node_goes_on_from_it(folder: Path, expected: dict[str, Any]) -> None:
    node = Node.open(folder, GROUP, make.SETTINGS)
    try:
        assert node.epoch == expected["last"]["epoch"] + 1
        paid = wish("one more", "bank", "alice", 1), wish("k1", "bank", "alice", 1000)
        answer = node.submit(*transfers(*paid)).result(PATIENCE_S)
        assert codes(answer) == [Code.DONE, Code.REPLAYED]
        names = ("id", "balance")
        found = node.look(lambda machine: of_machine(machine, names)).result(PATIENCE_S)
    finally:
        node.stop()
    by_id = dict(of_accounts(expected, names))
    by_id["bank"], by_id["alice"] = by_id["bank"] - 1, by_id["alice"] + 1
    assert dict(found) == by_id
    # What was there stands as it stood, and the new frames follow on it.
    reader = Reader(folder, GROUP)
    assert (
        link_of(reader.find(expected["last"]["seq"]).header).hash.hex()
        == (expected["last"]["hash"])
    )
    assert verify(folder, GROUP, lambda: new_machine(folder), id).frames > expected["last"]["seq"]


def test_the_machine_of_its_snapshot(
    folder: Path, expected: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader(folder, GROUP)
    kept = folder / FOLDER
    found = newest(kept, GROUP, in_list(reader), lambda: new_machine(folder))
    if found is None:
        # A newer machine may do without it; it says so, and finds no damage.
        assert expected["machine"] < VERSION
        assert [vars(record)["event"] for record in caplog.records] == ["snapshot.discarded"]
        return
    (seq,) = snapshot_seqs(path.name for path in kept.iterdir())
    assert found.machine.seq == seq < expected["last"]["seq"]
    for frame in reader.read(seq + 1, until=expected["last"]["seq"]):
        replay(frame, found.machine)
    check_state(found.machine, expected)


def test_the_read_side(folder: Path, expected: dict[str, Any]) -> None:
    found = make.accounts(folder)
    assert [
        {**account, **was} for account, was in zip(found, expected["accounts"], strict=True)
    ] == found
