"""A start from a snapshot is a start from the first frame, only shorter; and `tandem eventstore`
makes, uses and verifies snapshots.
"""

import json
from pathlib import Path
from shutil import copytree

import pytest
from click.testing import CliRunner, Result

from coordinator.http.schemas import time_text
from eventstore.look import ListView
from eventstore.machine.errors import LimitReached
from eventstore.machine.machine import Limits, Machine
from eventstore.node.node import Node
from eventstore.rows import Code
from eventstore.segments.chain import link_of
from eventstore.segments.errors import Differs
from eventstore.segments.reader import Reader
from eventstore.snapshots.header import HEADER_BYTES
from eventstore.snapshots.names import FOLDER, snapshot_name
from eventstore.snapshots.reader import seqs
from eventstore.snapshots.writer import write
from tandem.cli.eventstore import eventstore
from tests.eventstore.groups import (
    GROUP,
    PATIENCE_S,
    SETTINGS,
    accounts,
    balances,
    codes,
    new_folder,
    opened,
    transfers,
    wish,
)

# Few frames to a segment, so that there are several.
SMALL = SETTINGS._replace(segment_bytes=2000)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(eventstore, [str(each) for each in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A list with some frames, whose node has ended."""
    folder = new_folder(tmp_path / "g1")
    node = opened(folder, SMALL)
    node.submit(*accounts("bank", "alice", "bob")).result(PATIENCE_S)
    pay(node, 1, 10)
    node.stop()
    return folder


def pay(node: Node, first: int, count: int) -> None:
    for number in range(first, first + count):
        paid = wish(f"{number}", "bank", "alice", number)
        assert codes(node.submit(*transfers(paid)).result(PATIENCE_S)) == [Code.DONE]


def more(folder: Path, first: int, count: int) -> None:
    """Some frames behind those that are there."""
    node = opened(folder, SMALL)
    pay(node, first, count)
    node.stop()


def made(folder: Path) -> Path:
    """A snapshot of all that there is, by the command."""
    done = run("snapshot", folder, "--json")
    assert done.exit_code == 0, done.output
    return Path(json.loads(done.stdout)["file"])


def digest(folder: Path) -> str:
    """What `verify` makes of it, from the first frame on."""
    done = run("verify", folder, "--json")
    assert done.exit_code == 0, done.output
    told: str = json.loads(done.stdout)["state_digest"]
    return told


def last_seq(folder: Path) -> int:
    return Reader(folder, GROUP).tail().end.last.seq


def kept_of_another_state(folder: Path) -> Path:
    """A snapshot after the last frame that is whole, with a state that the list does not give."""
    until = last_seq(folder)
    other = Machine(bytes(16), lambda place: None, Limits(9, 9))  # type: ignore[arg-type,return-value]
    for seq in range(1, until + 1):
        other.apply(seq, seq, *accounts(*(["bank", "bob"] if seq == 1 else [])))
    link = link_of(Reader(folder, GROUP).find(until).header)
    return write(folder / FOLDER, GROUP, link, other, room_bytes_min=0)


# --- a node -------------------------------------------------------------------------------------


def test_a_node_begins_with_a_snapshot_and_what_came_behind_it(folder: Path) -> None:
    made(folder)
    more(folder, 11, 5)
    node = opened(folder, SMALL)
    assert balances(node, "bank", "alice", "bob") == [-120, 120, 0]
    # Of before and of behind it: the same is known for ever, and another is refused.
    again = [wish(f"{n}", "bank", "alice", n) for n in (1, 15)]
    other = again[0]._replace(amount=7)
    asked = node.submit(*transfers(*again, other, wish("new", "bank", "bob", 1)))
    assert codes(asked.result(PATIENCE_S)) == [
        *(Code.REPLAYED, Code.REPLAYED, Code.REUSED, Code.DONE),
    ]
    found = node.look(lambda machine: machine.digest().hex()).result(PATIENCE_S)
    seq = node.answerable
    node.stop()
    machine, _ = ListView(folder).replayed()
    assert machine.digest().hex() == digest(folder)
    # That of the node, by a machine that began with the first frame.
    from_first = ListView(folder).new_machine()
    for frame in Reader(folder, GROUP).read(until=seq):
        header, body = frame.header, frame.body
        from_first.apply(header.time_us, header.seq, body.commands, body.texts)
        if from_first.digest().hex() == found:
            return
    pytest.fail("the node had a state that the list does not give")


def test_it_begins_nowhere_else(folder: Path) -> None:
    """It does not replay the frames before: here they would give something else."""
    kept_of_another_state(folder)
    node = opened(folder, SMALL)
    assert node.look(len).result(PATIENCE_S) == 2
    node.stop()


def test_what_comes_behind_a_snapshot_is_compared(folder: Path) -> None:
    kept_of_another_state(folder)
    elsewhere = folder / FOLDER
    aside = elsewhere.rename(folder / "aside")
    more(folder, 11, 1)
    aside.rename(elsewhere)
    with pytest.raises(Differs, match="NO_DESTINATION"):
        opened(folder, SMALL)


def test_snapshots_elsewhere(folder: Path, tmp_path: Path) -> None:
    kept_of_another_state(folder)
    elsewhere = (folder / FOLDER).rename(tmp_path / "elsewhere")
    for place, count in ((None, 3), (tmp_path / "nowhere", 3), (elsewhere, 2)):
        node = Node.open(folder, GROUP, SMALL, snapshots=place)
        assert node.look(len).result(PATIENCE_S) == count
        node.stop()


def test_a_damaged_one_is_passed_over(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    older = made(folder)
    more(folder, 11, 5)
    path = made(folder)
    for damaged in (path, older):
        data = bytearray(damaged.read_bytes())
        data[-1] ^= 1
        damaged.write_bytes(data)
        caplog.clear()
        node = opened(folder, SMALL)
        assert balances(node, "alice") == [120]
        node.stop()
        told = [record.file for record in caplog.records if record.event == "snapshot.damaged"]
        assert told == [path.name, older.name][: len(told)]
        assert len(told) == (1 if damaged == path else 2)


def test_a_list_that_was_set_back(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older = made(folder)
    back = copytree(folder, tmp_path / "back")
    more(folder, 11, 5)
    path = made(folder)
    (back / FOLDER / path.name).write_bytes(path.read_bytes())
    # As many frames as the snapshot has seen, and more, but others.
    for ahead in range(2):
        node = opened(back, SMALL)
        assert balances(node, "alice") == [55 + 70 * ahead]
        told = [r.file for r in caplog.records if r.event == "snapshot.discarded"]
        assert told == [path.name]
        caplog.clear()
        for number in range(7):
            paid = wish(f"other.{number}", "bank", "alice", 10)
            node.submit(*transfers(paid)).result(PATIENCE_S)
        node.stop()
    assert last_seq(back) > int(path.name[:20])
    done = run("verify", back)
    assert done.exit_code == 1
    assert path.name in done.output
    assert older.name not in done.output


def test_a_snapshot_that_is_larger_than_the_node_may_be(folder: Path) -> None:
    made(folder)
    with pytest.raises(LimitReached, match="limit of 2 accounts"):
        opened(folder, SMALL._replace(machine=Limits(accounts=2)))
    # It has let go of the list.
    opened(folder, SMALL).stop()


# --- commands -----------------------------------------------------------------------------------


def test_snapshots_are_made_beside_a_node(folder: Path) -> None:
    node = opened(folder, SMALL)
    for number in range(11, 15):
        pay(node, number, 1)
        beside = run("snapshot", folder)
        assert beside.exit_code == 0, beside.output
        assert "The state after frame" in beside.output
    assert run("verify", folder).exit_code == 0
    node.stop()
    path = made(folder)
    assert path == folder / FOLDER / snapshot_name(last_seq(folder))
    # There is one already.
    before = path.stat()
    assert made(folder) == path
    assert path.stat() == before
    assert len(seqs(folder / FOLDER)) == 2
    assert json.loads(run("verify", folder, "--json").stdout)["snapshots"] == 2
    assert "Snapshots that hold: 2" in run("verify", folder).output


def test_any_moment_can_be_rebuilt_with_snapshots(folder: Path) -> None:
    moments = []
    for number in range(11, 15):
        more(folder, number, 1)
        moments += [
            frame.header.time_us
            for frame in Reader(folder, GROUP).read(until=last_seq(folder))
            if len(frame.body.commands)
        ][-1:]
        if number in (12, 13):
            made(folder)
    for number, moment in enumerate(moments, 11):
        for shift, last in ((0, number), (-1, number - 1)):
            at = ("--at", time_text(moment + shift), "--account", "alice", "--json")
            told = json.loads(run("state", folder, *at).stdout)
            assert told["accounts"][0]["balance"] == last * (last + 1) // 2
    assert json.loads(run("state", folder, "--json").stdout)["accounts"][1]["balance"] == 105


def test_the_moment_of_a_snapshot_itself(folder: Path) -> None:
    path = made(folder)
    seq = int(path.name[:20])
    header = Reader(folder, GROUP).find(seq).header
    more(folder, 11, 1)
    told = json.loads(run("state", folder, "--at", time_text(header.time_us), "--json").stdout)
    assert told["as_of"] == {"seq": seq, "time": time_text(header.time_us)}


def test_a_snapshot_with_another_state_is_named(folder: Path) -> None:
    before = digest(folder)
    path = kept_of_another_state(folder)
    done = run("verify", folder)
    assert done.exit_code == 1
    assert str(path) in done.output
    assert f"digest of the state after frame {last_seq(folder)}" in done.output
    assert f"should be {before}" in done.output


@pytest.mark.parametrize("offset", [0, 50, 150, 180, 300, -1])
def test_a_damaged_snapshot_is_named(folder: Path, offset: int) -> None:
    whole = made(folder)
    more(folder, 11, 1)
    path = made(folder)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    done = run("verify", folder)
    assert done.exit_code == 1
    assert f"{path}, at byte {0 if 0 <= offset < HEADER_BYTES else HEADER_BYTES}: " in done.output
    assert whole.name not in done.output


def test_a_snapshot_behind_the_end_is_named_when_no_node_runs(folder: Path) -> None:
    path = made(folder)
    beyond = path.rename(path.with_name(snapshot_name(10**6)))
    done = run("verify", folder)
    assert done.exit_code == 1
    assert f"{beyond}: its frame is 1000000, and should be at most" in done.output
    node = opened(folder, SMALL)
    # It may be that it has come so far since.
    assert run("verify", folder).exit_code == 0
    node.stop()


def test_no_list_has_no_snapshot(tmp_path: Path) -> None:
    assert run("snapshot", tmp_path).exit_code == 3
    assert list(tmp_path.iterdir()) == []
