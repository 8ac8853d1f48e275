"""Two nodes on real files run transfers between them by TC/C and Saga; what was kept before there
were attempts is used as it is.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from struct import pack

import pytest
from click.testing import CliRunner, Result

from eventstore.commands import Packer
from eventstore.machine.machine import VERSION
from eventstore.node.node import Node
from eventstore.reading.errors import Ended, NotEntered
from eventstore.reading.side import ReadSide
from eventstore.rows import CallCode, Code, EventCode, Kind, PhaseCode
from eventstore.segments.errors import NewerMachine
from eventstore.segments.frame import Frame
from eventstore.segments.reader import Reader
from eventstore.server.firsts import Firsts
from eventstore.snapshots.header import HEADER_BYTES
from eventstore.verify import replay
from ledger.errors import Bug
from ledger.model import Reason, Refusal, Status, Transfer
from tandem.cli.eventstore import eventstore
from tests.eventstore.groups import (
    GROUP,
    PATIENCE_S,
    accounts,
    balances,
    codes,
    new_folder,
    opened,
    wish,
)
from tests.eventstore.states import BLOCK_BYTES, found, kept, link, machine_at
from tests.eventstore.test_reading_model import new_machine

P, E, C = PhaseCode, EventCode, CallCode
ATTEMPT = "tandem.s1.c1.0190000000a.00000001"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(eventstore, [str(each) for each in arguments])


def decide(node: Node, packer: Packer) -> list[Code]:
    return codes(node.submit(*packer.packed).result(PATIENCE_S))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Two groups; in the first is the bank, in the second alice."""
    nodes = [opened(new_folder(tmp_path / name)) for name in ("g1", "g2")]
    for node, account in zip(nodes, ("bank", "alice"), strict=True):
        node.submit(*accounts(account)).result(PATIENCE_S)
    yield nodes
    for node in nodes:
        node.stop()


def begin(source: Node, paid: Transfer) -> None:
    assert decide(source, Packer().begin(paid, ATTEMPT)) == [Code.DONE]


def confirm(source: Node, destination: Node, paid: Transfer) -> None:
    """What follows on a begin by TC/C."""
    for node, packer in (
        (destination, Packer().call(paid, ATTEMPT, C.TRY)),
        (source, Packer().advance(paid, ATTEMPT, P.TRYING, E.TRIED)),
        (destination, Packer().call(paid, ATTEMPT, C.CONFIRM)),
        (source, Packer().advance(paid, ATTEMPT, P.CONFIRMING, E.CONFIRMED)),
    ):
        assert decide(node, packer) == [Code.STEPPED]


def test_a_transfer_between_two_groups_and_a_restart(nodes: list[Node], tmp_path: Path) -> None:
    paid = wish("k", "bank", "alice", 5, protocol="tcc")
    begin(nodes[0], paid)
    nodes[0].stop()
    state = run("state", tmp_path / "g1", "--json")
    (unfinished,) = json.loads(state.stdout)["unfinished"]
    assert (unfinished["phase"], unfinished["amount"]) == ("trying", 5)
    assert "trying" in run("state", tmp_path / "g1").output
    # It remembers what has begun, and that what has ended is not to begin again.
    nodes[0] = opened(tmp_path / "g1")
    confirm(*nodes, paid)
    assert (balances(nodes[0], "bank"), balances(nodes[1], "alice")) == ([-5], [5])
    again = Packer().begin(paid, ATTEMPT).begin(paid, "another").transfer(paid)
    assert decide(nodes[0], again) == [Code.STANDS, Code.REPLAYED, Code.REPLAYED]
    other = Packer().begin(paid._replace(amount=6), "another")
    assert decide(nodes[0], other) == [Code.REUSED]
    for name, node in zip(("g1", "g2"), nodes, strict=True):
        node.stop()
        assert run("snapshot", tmp_path / name).exit_code == 0
        verified = run("verify", tmp_path / name)
        assert verified.exit_code == 0, verified.output
        assert "Snapshots that hold: 1" in verified.output
    told = shown(tmp_path / "g1")
    for each in (f"begin {ATTEMPT} of {decided_id(paid).hex()} by tcc", f"take {ATTEMPT} of"):
        assert each in told
    assert f"try {ATTEMPT}" in shown(tmp_path / "g2")
    nodes[0] = opened(tmp_path / "g1")
    assert decide(nodes[0], again) == [Code.STANDS, Code.REPLAYED, Code.REPLAYED]


def test_what_was_decided_of_it_is_told_from_the_list(nodes: list[Node], tmp_path: Path) -> None:
    source = nodes[0]
    done = wish("done", "bank", "alice", 5, protocol="tcc")
    begin(source, done)
    confirm(*nodes, done)
    refused = wish("refused", "bank", "alice", 6, protocol="saga", metadata='{"n":1}')
    why = Refusal(Reason.ACCOUNT_CLOSED, "account alice is closed")
    begin(source, refused)
    packer = Packer().advance(refused, ATTEMPT, P.CREDITING, E.REFUSED, why)
    packer.advance(refused, ATTEMPT, P.COMPENSATING, E.DUE).status("bank", Status.CLOSED)
    assert decide(source, packer) == [Code.STEPPED, Code.STEPPED, Code.NOT_EMPTY]
    firsts = Firsts(Reader(tmp_path / "g1", GROUP), source.terms)
    for paid, reason, detail in ((done, None, None), (refused, why.reason.value, why.detail)):
        key = decided_id(paid)
        place = source.look(lambda machine, key=key: machine.place_of(key)).result(PATIENCE_S)
        assert place is not None
        told = firsts.at(place)
        assert (told.transfer.key, told.transfer.metadata) == (paid.key, paid.metadata)
        assert (told.reason, told.detail) == (reason, detail)


def decided_id(paid: Transfer) -> bytes:
    return bytes(Packer().begin(paid, ATTEMPT).packed.commands["id"].tobytes())


def shown(folder: Path) -> str:
    """All frames with commands, as they are shown."""
    seqs = [frame.header.seq for frame in frames_in(folder) if len(frame.body.commands)]
    return "".join(run("show", folder, seq, "--json").stdout for seq in seqs)


def frames_in(folder: Path) -> list[Frame]:
    reader = Reader(folder, GROUP)
    return list(reader.read(1, until=reader.tail().end.last.seq))


def step_at(folder: Path) -> int:
    """The first frame with a step."""
    frames = frames_in(folder)
    return next(f.header.seq for f in frames if (f.body.commands["kind"] >= Kind.BEGIN).any())


# --- the read side ------------------------------------------------------------------------------


def test_the_read_side_says_that_it_does_not_enter_steps(tmp_path: Path) -> None:
    folder, kept_in = new_folder(tmp_path / "g1"), tmp_path / "reading"
    kept_in.mkdir()
    node = opened(folder)
    node.submit(*accounts("bank")).result(PATIENCE_S)
    begin(node, wish("k", "bank", "alice", 5, protocol="saga"))
    node.stop()
    side = ReadSide.open(kept_in, folder, GROUP, new_machine(folder), accounts_max=10)
    *before, step = [frame for frame in frames_in(folder) if frame.header.seq <= step_at(folder)]
    for frame in before:
        side.apply(frame)
    with pytest.raises(NotEntered, match="is a step of TC/C or Saga"):
        side.apply(step)
    with pytest.raises(Ended, match="the node goes on; only reads are away"):
        side.accounts(["bank"])
    side.close()


# --- what there was before ----------------------------------------------------------------------


def _of_version(frame: Frame, version: int) -> Frame:
    return frame._replace(header=frame.header._replace(machine=version))


def test_a_frame_is_replayed_by_its_own_version(nodes: list[Node], tmp_path: Path) -> None:
    nodes[0].stop()
    first, *_ = frames_in(tmp_path / "g1")
    assert first.header.machine == VERSION
    replay(_of_version(first, 1), machine_at(0))
    with pytest.raises(NewerMachine, match=r"by version 3 of the machine, .* up to 2"):
        replay(_of_version(first, 3), machine_at(0))
    nodes[0] = opened(tmp_path / "g1")
    begin(nodes[0], wish("k", "bank", "alice", 5, protocol="tcc"))
    nodes[0].stop()
    begun = frames_in(tmp_path / "g1")[step_at(tmp_path / "g1") - 1]
    with pytest.raises(Bug, match="is of version 1 of the machine, which knows no"):
        replay(_of_version(begun, 1), machine_at(0))


def test_a_snapshot_without_attempts_is_loaded(tmp_path: Path) -> None:
    """As version 1 has written it, from its bytes."""
    folder = tmp_path
    path = kept(folder, 5)
    whole = path.read_bytes()
    content = whole[HEADER_BYTES:]
    head = whole[:6] + pack("<H", 1) + whole[8:104] + pack("<I", 1) + whole[108:144]
    head += whole[152:184]
    old = head + sha256(head).digest()
    assert len(old) == 208
    # Its blocks follow on another header.
    before, blocks = old[-32:], b""
    while content:
        length = min(BLOCK_BYTES, len(content) - 32)
        block, content = content[:length], content[length + 32 :]
        before = sha256(before + block).digest()
        blocks += block + before
    path.write_bytes(old + blocks)
    loaded = found(folder)
    assert loaded is not None
    assert loaded.link == link(5)
    assert loaded.machine.digest() == machine_at(5).digest()


def test_attempts_do_not_change_what_a_state_without_them_is() -> None:
    """The digest of version 1, which stands in snapshots, and that auditors have noted."""
    known = "3bfbff26d34970e6d96e85462a2c08a3e5e941ed7c9a0039a8dc231dda8f0bc2"
    assert machine_at(5).digest().hex() == known
