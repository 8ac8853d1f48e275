"""Power cuts, kills and errors at every step of writing snapshots, on files that forget what they
may: there is always the newest that was durable, or the one that was being written, and no other.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from eventstore.machine.machine import Machine
from eventstore.segments.errors import FileFailed
from eventstore.segments.files import Files
from eventstore.snapshots import writer
from eventstore.snapshots.blocks import BlockWriter
from eventstore.snapshots.header import Header
from eventstore.snapshots.names import scratch_name, snapshot_name
from eventstore.snapshots.reader import seqs
from tests.eventstore.forgetful import Fault, Forgetful, PowerCut
from tests.eventstore.states import found, kept, machine_at

DIGESTS = {seq: machine_at(seq).digest() for seq in range(1, 7)}


def play(folder: Path, step: int, fault: Fault, seed: int) -> Forgetful:
    """Two snapshots, and a fault in the making of the third and fourth."""
    files, chance = Forgetful(), random.Random(seed)
    durable = 0
    for seq in (1, 2):
        kept(folder, seq, files)
        durable = seq
    files.steps, files.faults = 0, {step: fault}
    under_way = durable
    try:
        for under_way in (3, 4):
            kept(folder, under_way, files)
            durable = under_way
    except PowerCut:
        pass
    except FileFailed:
        # A process that goes on.
        assert found(folder, files).link.seq in (durable, under_way)
    if "cut" in fault:
        files.power_cut(chance)
    elif chance.random() < 0.5:
        files.kill()
    else:
        files.power_cut(chance)
    files.faults.clear()
    loaded = found(folder, files)
    assert loaded is not None, "there is none"
    assert loaded.link.seq in (durable, under_way), "the newest is lost"
    assert loaded.machine.digest() == DIGESTS[loaded.link.seq]
    kept(folder, 5, files)
    assert found(folder, files).machine.digest() == DIGESTS[5]
    assert len(seqs(folder, files)) == 2
    assert files.paths(".tmp") == []
    return files


def steps(folder: Path) -> int:
    """How many steps it takes to make two snapshots."""
    files = Forgetful()
    for seq in (1, 2):
        kept(folder, seq, files)
    before = files.steps
    for seq in (3, 4):
        kept(folder, seq, files)
    return files.steps - before


@pytest.mark.parametrize("fault", get_args(Fault))
def test_a_fault_at_every_step(
    tmp_path: Path, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    assert steps(tmp_path) > 20
    for step in range(1, steps(tmp_path) + 1):
        for seed in range(3):
            play(tmp_path, step, fault, seed)
    # Nothing that had its name was ever damaged.
    assert caplog.records == []


# --- each rule, taken away ------------------------------------------------------------------------


def _finish_unflushed(self: BlockWriter) -> None:
    if self._block:
        self._write()


def _put_unnamed(folder: Path, header: Header, machine: Machine, files: Files) -> Path:
    scratch, path = (folder / of(header.link.seq) for of in (scratch_name, snapshot_name))
    writer._write(scratch, header, machine, files)
    files.rename(scratch, path)
    return path


def _put_in_its_place(folder: Path, header: Header, machine: Machine, files: Files) -> Path:
    path = folder / snapshot_name(header.link.seq)
    writer._write(path, header, machine, files)
    files.flush_folder(folder)
    return path


TAKEN_AWAY: dict[str, tuple[object, str, Callable[..., object]]] = {
    "what is written is not flushed": (BlockWriter, "finish", _finish_unflushed),
    "its name is not flushed": (writer, "_put", _put_unnamed),
    "it has its name while it is written": (writer, "_put", _put_in_its_place),
}


@pytest.mark.parametrize("rule", TAKEN_AWAY)
def test_each_rule_is_needed(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    where, name, instead = TAKEN_AWAY[rule]
    monkeypatch.setattr(where, name, instead)

    def at_every_step() -> None:
        for step in range(1, steps(tmp_path) + 1):
            for seed in range(20):
                play(tmp_path, step, "cut-after", seed)
                assert caplog.records == [], "the newest is damaged"

    with pytest.raises(AssertionError, match=r"newest|there is none"):
        at_every_step()
