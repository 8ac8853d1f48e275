"""Power cuts, kills, failed writes and flushes at every step, on files that forget what they may.

The promise: what was flushed is there, in its order, whatever happens; and what is there beyond it
is a beginning of what was appended behind it, and nothing else.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.segments import writer
from eventstore.segments.errors import FileFailed, ListDead, ListError
from eventstore.segments.files import Files
from eventstore.segments.names import segment_name
from eventstore.segments.reader import Tail
from eventstore.segments.writer import List, begin
from tests.eventstore.drafts import add, hashes, opened, to_be_added
from tests.eventstore.forgetful import Fault, Forgetful, PowerCut

FOLDER = Path("/group")
# A few small frames fill a segment.
SEGMENT_BYTES = 2000

# What is done between two starts: frames of such sizes are appended, or (None) all is flushed.
Script = list[list[int] | None]


class History:
    """What was appended to a list, as hashes, and how much of that was flushed. Each start compares
    it with what is there.
    """

    def __init__(self) -> None:
        self.files = Forgetful()
        self.appended: list[bytes] = []
        self.flushed = 0
        self.list: List | None = None
        self._has_begun = False
        self._salt = 0

    def run(self, script: Script) -> None:
        self.list = None
        if not self._has_begun:
            begin(FOLDER, files=self.files)
            self._has_begun = True
        self.list = opened(FOLDER, self.files, segment_bytes=SEGMENT_BYTES)
        self._compare(self.list)
        for sizes in script:
            if sizes is None:
                self.flushed = self.list.flush()
                assert self.flushed == len(self.appended)
            else:
                self._append(self.list, sizes)

    def _compare(self, list_: List) -> None:
        found = hashes(list_)
        assert len(found) >= self.flushed, "something that was flushed is lost"
        assert found == self.appended[: len(found)], "something else is there"
        assert list_.flushed == len(found)
        assert self.files.paths(".tmp") == []
        # From now on it may be seen.
        self.appended, self.flushed = found, len(found)

    def _append(self, list_: List, sizes: list[int]) -> None:
        self._salt += 1
        made = to_be_added(list_, sizes, self._salt)
        # If it fails, nobody knows how far it came.
        self.appended = self.appended + made
        assert [frame.link.hash for frame in add(list_, sizes, self._salt)] == made

    def run_into(self, script: Script, chance: random.Random) -> None:
        """Run to the end or to a fault; then all processes end, perhaps by a power cut."""
        cut = chance.random() < 0.7
        try:
            self.run(script)
        except PowerCut:
            cut = True
        except FileFailed:
            if self.list:
                with pytest.raises(ListDead):
                    self.list.flush()
        if cut:
            self.files.power_cut(chance)
        else:
            self.files.kill()


SCRIPTS: list[Script] = [
    [[0], None, [8, 1], None, [3, 20, 0, 9]],
    [[2], None, [30, 1, 1, 1, 1, 40]],
    [[1, 1], [5]],
    [None, [1], None],
]


def play(scripts: list[Script], faults: dict[int, Fault], seed: int) -> Forgetful:
    chance, history = random.Random(seed), History()
    history.files.faults = dict(faults)
    for script in scripts:
        history.run_into(script, chance)
        # Those that are still to come.
        history.files.faults = {n: f for n, f in faults.items() if n > history.files.steps}
    history.files.faults.clear()
    history.run_into([[4], None], chance)
    history.run([])
    return history.files


STEPS = play(SCRIPTS, {}, 0).steps


def at_every_step(faults: Sequence[Fault], seeds: int) -> None:
    for fault in faults:
        for step in range(1, STEPS + 1):
            for seed in range(seeds):
                play(SCRIPTS, {step: fault}, seed * 1000 + step)


@pytest.mark.parametrize("fault", get_args(Fault))
def test_a_fault_at_every_step(fault: Fault) -> None:
    at_every_step([fault], seeds=2)


_scripts = st.lists(st.none() | st.lists(st.integers(0, 40), min_size=1, max_size=4), max_size=6)
_faults = st.dictionaries(st.integers(1, 80), st.sampled_from(get_args(Fault)), max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.lists(_scripts, max_size=4), _faults, st.integers(0, 2**32))
def test_whatever_happens(scripts: list[Script], faults: dict[int, Fault], seed: int) -> None:
    play(scripts, faults, seed)


# --- each rule, taken away ------------------------------------------------------------------------


def _believed_as_it_is(files: Files, folder: Path, tail: Tail) -> None:
    """The end is cut in its place, and nothing is flushed."""
    file = files.open(folder / segment_name(tail.first))
    files.write(file, 0, tail.data[: tail.end.size])
    files.close(file)


def _put_unflushed(files: Files, folder: Path, name: str, data: bytes) -> None:
    scratch = folder / f"{name}.tmp"
    file = files.create(scratch)
    files.write(file, 0, data)
    files.close(file)
    files.rename(scratch, folder / name)
    files.flush_folder(folder)


def _roll_unflushed(self: List, first: int) -> None:
    path = self._folder / segment_name(first)
    self._segment = writer._OpenSegment(self._files.create(path), path, 0)
    self._files.flush_folder(self._folder)


def _roll_unnamed(self: List, first: int) -> None:
    self._flush_segment()
    path = self._folder / segment_name(first)
    self._segment = writer._OpenSegment(self._files.create(path), path, 0)


TAKEN_AWAY: dict[str, tuple[object, str, Callable[..., object], str]] = {
    "the end is believed as it is read": (writer, "_write_anew", _believed_as_it_is, "should be"),
    "the end, written anew, is not flushed": (writer, "_put", _put_unflushed, "is lost"),
    "a segment is sealed and not flushed": (List, "_roll", _roll_unflushed, "should be"),
    "the folder of a new segment is not flushed": (
        List,
        "_roll",
        _roll_unnamed,
        "is lost|should be",
    ),
}


@pytest.mark.parametrize("rule", TAKEN_AWAY)
def test_each_rule_is_needed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, instead, fault = TAKEN_AWAY[rule]
    monkeypatch.setattr(where, name, instead)
    with pytest.raises((AssertionError, ListError), match=fault):
        at_every_step(["cut-half", "cut-after"], seeds=6)


def test_a_flush_that_succeeds_after_one_that_failed_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files, history = Forgetful(), History()
    history.files = files
    history.run([[1], None, [2]])
    files.faults = {files.steps + 1: "error"}
    assert history.list is not None
    with pytest.raises(FileFailed, match="flush failed"):
        history.list.flush()
    with pytest.raises(ListDead, match="flush failed"):
        history.list.flush()
    # So it would be without the rule.
    monkeypatch.setattr(List, "_check_alive", lambda self: None)
    assert history.list.flush() == 2
    history.flushed = 2
    files.power_cut(random.Random(1))
    with pytest.raises(AssertionError, match="is lost"):
        history.run([])
