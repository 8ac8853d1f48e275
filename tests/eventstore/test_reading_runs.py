"""Runs, and the other files of the read side: what is in them is found, and every byte that is
changed is named, or changes nothing.
"""

import random
from pathlib import Path

import numpy as np
import pytest

from eventstore.reading.errors import KeptDamaged, ReadingError
from eventstore.reading.history import between
from eventstore.reading.keeper import Sizes
from eventstore.reading.merging import merged
from eventstore.reading.names import run_name
from eventstore.reading.run import Run
from eventstore.reading.run_format import HEADER_BYTES, PAGE_BYTES, SPANS_IN_GROUP, Header
from eventstore.reading.run_writer import RunWriter
from eventstore.reading.shapes import ENTRY, ENTRY_WORDS, Entries
from eventstore.reading.side import ReadSide
from eventstore.reading.writing import whole_file
from eventstore.segments.errors import ListError
from ledger.errors import Bug
from tests.eventstore.forgetful import Forgetful
from tests.eventstore.groups import GROUP
from tests.eventstore.test_reading_model import Group, check, random_frames

FOLDER = Path("/reading")


def entries_of(counts: dict[int, int], number: int = 1) -> Entries:
    """So many of each account, from a number on, in the order of their accounts."""
    accounts = np.repeat(sorted(counts), [counts[each] for each in sorted(counts)])
    entries = np.zeros(len(accounts), ENTRY)
    entries["account"] = accounts
    entries["number"] = [n for each in sorted(counts) for n in range(number, number + counts[each])]
    entries["balance"] = np.arange(len(accounts))
    return entries


def written(
    files: Forgetful, entries: Entries, after: int, until: int, piece: int, level: int = 0
) -> Run:
    header = Header(GROUP, after, until, level, len(entries), 0)
    words = entries.view(np.uint64).reshape(-1, ENTRY_WORDS)
    with whole_file(files, FOLDER / run_name(after, until)) as output:
        writer = RunWriter(output, header)
        for at in range(0, len(words), piece):
            writer.add(words[at : at + piece])
        writer.finish()
    return Run.open(files, FOLDER, after, until, GROUP)


@pytest.mark.parametrize("piece", [7, 1000, 10**6])
def test_every_account_is_found(piece: int) -> None:
    """Many more accounts than a group has, one with many entries, and numbers up to the last."""
    chance = random.Random(piece)
    counts = {3 * n: chance.randrange(1, 4) for n in range(3 * SPANS_IN_GROUP + 5)}
    counts |= {3000: 5000, 2**32 - 2: 1}
    entries = entries_of(counts, 7)
    run = written(Forgetful(), entries, 0, 9, piece)
    assert (run.header.entries, run.header.accounts) == (len(entries), len(counts))
    for account, count in counts.items():
        part = run.find(account)
        assert part is not None
        assert (part.first, part.length) == (7, count)
        assert np.array_equal(part.read(0, count), entries[entries["account"] == account])
        assert len(part.read(count, count)) == 0
    for absent in (1, 3001, 2**31, 2**32 - 3):
        assert run.find(absent) is None
    run.verify()


def test_an_account_before_the_first_is_not_there() -> None:
    run = written(Forgetful(), entries_of({5: 1}), 0, 9, 10)
    assert run.find(4) is None
    assert run.find(6) is None


def test_merged_runs_have_all_entries() -> None:
    files, chance = Forgetful(), random.Random(1)
    runs, numbers = [], dict.fromkeys(range(300), 1)
    everything = []
    for n in range(4):
        counts = {a: chance.randrange(1, 300) for a in chance.sample(range(300), 150)}
        parts = [entries_of({account: counts[account]}, numbers[account]) for account in counts]
        entries = np.concatenate(sorted(parts, key=lambda part: int(part["account"][0])))
        for account, count in counts.items():
            numbers[account] += count
        runs.append(written(files, entries, n, n + 1, 5000))
        everything.append(entries)
    assert sum(1 for _ in merged(files, FOLDER, runs)) > 1
    run = Run.open(files, FOLDER, 0, 4, GROUP)
    assert run.header.level == 1
    found = np.concatenate(everything)
    expected = found[np.lexsort((found["number"], found["account"]))]
    assert np.array_equal(run.entries(0, len(expected)), expected)
    for account, number in numbers.items():
        if number > 1:
            of_all = between(runs, account, 1, number - 1)
            assert np.array_equal(between([run], account, 1, number - 1), of_all)
            assert len(of_all) == number - 1


def test_what_is_nowhere_is_our_own_mistake() -> None:
    files = Forgetful()
    runs = [
        written(files, entries_of({1: 3}), 0, 1, 9),
        written(files, entries_of({1: 2}, 5), 1, 2, 9),
    ]
    assert between(runs, 1, 5, 6)["number"].tolist() == [5, 6]
    for first, last in ((3, 5), (5, 7), (0, 1)):
        with pytest.raises(Bug, match="are nowhere"):
            between(runs, 1, first, last)


# --- damage -------------------------------------------------------------------------------------


def test_every_changed_byte_of_a_run_is_found() -> None:
    files = Forgetful()
    run = written(files, entries_of(dict.fromkeys(range(1200), 2)), 0, 9, 10**6)
    data = files.contents(run.path)
    assert len(data) == run.header.file_bytes
    chance = random.Random(2)
    for at in (*range(HEADER_BYTES), *chance.sample(range(len(data)), 300), len(data) - 1):
        right = data[at]
        data[at] ^= 1 << chance.randrange(8)
        with pytest.raises(KeptDamaged) as found:
            Run.open(files, FOLDER, 0, 9, GROUP).verify()
        assert found.value.file == str(run.path)
        if HEADER_BYTES <= at < HEADER_BYTES + run.header.pages * PAGE_BYTES:
            assert found.value.offset <= at < found.value.offset + PAGE_BYTES
        data[at] = right
    Run.open(files, FOLDER, 0, 9, GROUP).verify()


def test_a_run_that_is_shorter_or_longer_is_damaged() -> None:
    files = Forgetful()
    data = files.contents(written(files, entries_of({1: 3}), 0, 9, 9).path)
    data.append(0)
    with pytest.raises(KeptDamaged, match="number of bytes of the tables is 13, and should be 12"):
        Run.open(files, FOLDER, 0, 9, GROUP)
    for length in (len(data) - 2, HEADER_BYTES + 5, HEADER_BYTES - 1, 0):
        del data[length:]
        with pytest.raises(KeptDamaged, match="number of bytes"):
            Run.open(files, FOLDER, 0, 9, GROUP)


def test_a_run_under_another_name_is_damaged() -> None:
    files = Forgetful()
    run = written(files, entries_of({1: 3}), 0, 9, 9)
    files.rename(run.path, FOLDER / run_name(9, 18))
    with pytest.raises(KeptDamaged, match="list and frames"):
        Run.open(files, FOLDER, 9, 18, GROUP)


def test_a_wrong_answer_is_given_by_no_damage(tmp_path: Path) -> None:
    """Any byte of any file is changed: it is named, or all answers are as they were."""
    group, files, chance = Group(tmp_path / "list"), Forgetful(), random.Random(4)
    for commands in random_frames(chance, 12, 4):
        group.add(commands)
    group.close()
    side = group.open(FOLDER, sizes=Sizes(12, 3), files=files)
    group.follow(side)
    side.seal()
    side.close()
    files.kill()
    paths = [path for path in files.paths("") if path.name != "holder"]
    assert {path.suffix for path in paths} == {".run", ".heads", ""}
    named = [_named_damage(group, files, chance.choice(paths), chance) for _ in range(60)]
    assert sum(named) > 5


def _named_damage(group: Group, files: Forgetful, path: Path, chance: random.Random) -> bool:
    """Change a byte of a file, and put it back; whether it was named."""
    data = files.contents(path)
    at = chance.randrange(len(data))
    right, data[at] = data[at], data[at] ^ 1 << chance.randrange(8)
    found: ReadingError | ListError | None = None
    side: ReadSide | None = None
    try:
        side = group.open(FOLDER, sizes=Sizes(12, 3), files=files)
        group.follow(side)
        check(side, group.model, [1000])
    except (ReadingError, ListError) as error:
        found = error
    if side:
        side.close()
    files.kill()
    data[at] = right
    if found is None:
        return False
    assert isinstance(found, KeptDamaged)
    assert found.file == str(path)
    return True
