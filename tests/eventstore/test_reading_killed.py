"""Kills, power cuts, failed writes and flushes at every operation on the read side's files: whoever
opens them next answers all of it as before.

    python -m tests.eventstore.test_reading_killed FOLDER

kills processes for good, at every seventh point of their operations; prints a line for each:
whether it was killed.
"""

import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eventstore.reading import keeper
from eventstore.reading.errors import Ended, ReadingError
from eventstore.reading.keeper import Sizes
from eventstore.reading.side import ReadSide
from eventstore.reading.writing import Output
from eventstore.segments.errors import FileFailed, ListError
from eventstore.segments.files import Files
from ledger.model import Status
from tests.eventstore.forgetful import Fault, Forgetful, PowerCut
from tests.eventstore.killed import Deadly, dies
from tests.eventstore.test_reading_model import LAZY, Group
from tests.unit.eventstore.machine_books import Change, Command, Opening, Wish

FOLDER = Path("/reading")
# Every frame fills a block, and two runs are merged.
SIZES = Sizes(8, 2)
FRAMES = 4


def new_group(folder: Path) -> Group:
    group = Group(folder)
    group.add([Opening("bank", None), Opening("a"), Opening("b")])
    for n in range(FRAMES):
        wishes: list[Command] = [Wish("bank", "ab"[k % 2], k + 1, f"{n}-{k}") for k in range(6)]
        group.add([*wishes, Change("b", Status.FROZEN if n % 2 else Status.OPEN)])
    group.close()
    return group


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Group:
    return new_group(tmp_path_factory.mktemp("k") / "list")


def live(group: Group, folder: Path, files: Files, until: int) -> None:
    """See frames, and keep each of them."""
    side = group.open(folder, sizes=SIZES, files=files)
    try:
        for frame in group.frames(side.next_seq):
            if frame.header.seq <= until:
                side.apply(frame)
                side.seal()
    finally:
        side.close()


def same(side: ReadSide, group: Group) -> None:
    """All accounts and entries, from their first byte to their last."""
    found = side.accounts(list(group.model.accounts)).accounts
    assert found == [group.model.dated(account) for account in group.model.accounts]
    for account, entries in group.model.entries.items():
        assert side.entries(account, None, 1000).entries == entries
    side.verify()


def look(group: Group, folder: Path, files: Files) -> None:
    """What the next one says."""
    side = group.open(folder, sizes=SIZES, files=files)
    group.follow(side)
    same(side, group)
    side.seal()
    same(side, group)
    side.close()


def play(group: Group, fault: tuple[int, Fault] | None, seed: int) -> Forgetful:
    """Two lives, of which one may end badly, and a look."""
    files, chance = Forgetful(), random.Random(seed)
    files.faults = dict([fault] if fault else [])
    for until in (3, 1 + FRAMES):
        try:
            live(group, FOLDER, files, until)
        except (PowerCut, Ended, FileFailed):
            files.power_cut(chance) if chance.random() < 0.7 else files.kill()
    files.faults.clear()
    look(group, FOLDER, files)
    assert files.paths(".tmp") == []
    return files


def at_every_step(group: Group, faults: tuple[Fault, ...], seeds: int = 1) -> None:
    steps = play(group, None, 0).steps
    assert steps > 80
    for fault in faults:
        for step in range(1, steps + 1):
            for seed in range(seeds):
                play(group, (step, fault), seed)


# Before a step is after the one before it, and an error before a write is one at its first byte.
FAULTS: list[Fault] = ["cut-half", "cut-after", "error-half"]


@pytest.mark.parametrize("fault", FAULTS)
def test_after_whatever_has_happened_the_answers_are_the_same(group: Group, fault: Fault) -> None:
    at_every_step(group, (fault,))


# --- each of the rules is needed ----------------------------------------------------------------


@contextmanager
def _unflushed(files: Files, path: Path) -> Iterator[Output]:
    scratch = path.with_name(f"{path.name}.tmp")
    file = files.create(scratch)
    yield Output(files, file)
    files.close(file)
    files.rename(scratch, path)
    files.flush_folder(path.parent)


@contextmanager
def _in_its_place(files: Files, path: Path) -> Iterator[Output]:
    if path.name in files.names(path.parent):
        files.remove(path)
    file = files.create(path)
    yield Output(files, file)
    files.flush(file)
    files.close(file)
    files.flush_folder(path.parent)


TAKEN_AWAY: dict[str, Callable[..., object]] = {
    "a file is not flushed before it has its name": _unflushed,
    "a file has its name before it is whole": _in_its_place,
}


@pytest.mark.parametrize("rule", TAKEN_AWAY)
def test_each_rule_is_needed(group: Group, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (keeper, keeper.heads_file, keeper.manifest):
        monkeypatch.setattr(module, "whole_file", TAKEN_AWAY[rule])
    monkeypatch.setattr("eventstore.reading.merging.whole_file", TAKEN_AWAY[rule])
    with pytest.raises((ReadingError, ListError, AssertionError, FileExistsError)):
        at_every_step(group, ("cut-half", "cut-after"), seeds=3)


def test_a_merge_goes_on_beside_full_blocks(group: Group, tmp_path: Path) -> None:
    """What is being written is not taken for what a crash has left."""
    side = group.open(tmp_path, sizes=SIZES)
    group.follow(side)
    side.seal()
    same(side, group)
    assert side.stock.entries == sum(map(len, group.model.entries.values()))
    side.close()


# --- processes that are killed ------------------------------------------------------------------


class Killed(Deadly):
    """Without flushes: a process that is killed leaves what it has written."""

    def flush(self, file: int) -> None:
        self._around(lambda: None)

    def flush_folder(self, folder: Path) -> None:
        self._around(lambda: None)


def main() -> None:
    place = Path(sys.argv[1])
    group = new_group(place / "list")
    # Compiled before anything is forked, and no thread is left of it.
    (place / "first").mkdir()
    look(group, place / "first", LAZY)
    for at in itertools.count(1, 7):
        kept = place / f"{at}"
        kept.mkdir()
        was_killed = dies(lambda at=at, kept=kept: live(group, kept, Killed(at), 1 + FRAMES))  # type: ignore[misc]
        look(group, kept, LAZY)
        print(was_killed, flush=True)
        if not was_killed:
            break


def test_processes_that_are_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.eventstore.test_reading_killed", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    *killed, last = done.stdout.split()
    assert set(killed) == {"True"}
    assert last == "False"
    assert len(killed) > 15


if __name__ == "__main__":
    main()
