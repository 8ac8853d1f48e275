"""Opening a list: what is found is believed, cut, or refused with nothing changed."""

import errno
import logging
from pathlib import Path

import pytest

from eventstore.segments.chain import GENESIS
from eventstore.segments.errors import (
    Damaged,
    FileFailed,
    FolderInUse,
    ListExists,
    NewerFormat,
    NoList,
    OtherList,
)
from eventstore.segments.names import is_scratch, scratch_name, segment_name
from eventstore.segments.writer import List, begin
from tests.eventstore.drafts import IDENTITY, add, begun, hashes, opened, sealed
from tests.eventstore.forgetful import Forgetful

FOLDER = Path("/group")
FIRST = FOLDER / segment_name(1)


def written(files: Forgetful, path: Path, data: bytes) -> None:
    """Put a file there, as another program would."""
    file = files.create(path)
    files.write(file, 0, data)
    files.flush(file)
    files.close(file)
    files.flush_folder(path.parent)


def snapshot(files: Forgetful) -> dict[str, bytes]:
    return {path.name: bytes(files.contents(path)) for path in files.paths("")}


# --- the beginning --------------------------------------------------------------------------------


def test_a_new_list_is_empty() -> None:
    with begun(FOLDER, Forgetful()) as list_:
        assert (list_.last, list_.flushed, hashes(list_)) == (GENESIS, 0, [])
        assert list_.flush() == 0


def test_a_list_begins_only_where_it_is_told_to() -> None:
    with pytest.raises(NoList, match="its files are gone or its disk is not mounted"):
        opened(FOLDER, Forgetful())


def test_beginning_may_be_repeated_until_there_is_a_frame() -> None:
    files = Forgetful()
    begin(FOLDER, files=files)
    with begun(FOLDER, files) as list_:
        with pytest.raises(FolderInUse):
            begin(FOLDER, files=files)
        add(list_, [1])
    with pytest.raises(ListExists, match="a list of 1 segments"):
        begin(FOLDER, files=files)
    with opened(FOLDER, files) as list_:
        assert list_.last.seq == 1


def test_an_empty_open_segment_behind_a_sealed_one() -> None:
    files = Forgetful()
    with begun(FOLDER, files, segment_bytes=1) as list_:
        made = [frame.link.hash for frame in add(list_, [3, 1])]
        list_.flush()
    written(files, FOLDER / segment_name(3), b"")
    with opened(FOLDER, files) as list_:
        assert hashes(list_) == made
        add(list_, [2])
        assert list_.flush() == 3
    assert len(files.contents(FOLDER / segment_name(3))) > 0


# --- the end --------------------------------------------------------------------------------------


def test_what_was_written_and_not_flushed_is_believed_when_it_is_on_the_disk() -> None:
    files = Forgetful()
    made = [frame.link.hash for frame in add(begun(FOLDER, files), [1, 2])]
    files.kill()
    before = files.steps
    with opened(FOLDER, files) as list_:
        assert (list_.flushed, hashes(list_)) == (2, made)
    assert files.done[before:] == [
        f"create {FIRST.name}.tmp",
        "write",
        "flush",
        "flush folder",
        f"rename {FIRST.name}.tmp",
        "flush folder",
    ]


def test_a_last_frame_torn_at_every_byte_is_cut_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    files = Forgetful()
    with begun(FOLDER, files) as list_:
        made = add(list_, [1, 0])
    whole = bytes(files.contents(FIRST))
    keep = len(made[0].data)
    for length in range(keep + 1, len(whole)):
        files.contents(FIRST)[:] = whole[:length]
        for name in files.paths(".cut"):
            files.remove(name)
        caplog.clear()
        with opened(FOLDER, files) as list_:
            assert list_.last == made[0].link
            # The next one stands where it did, with nothing behind it.
            assert files.contents(FIRST) == whole[:keep]
        (cut,) = files.paths(".cut")
        assert files.contents(cut) == whole[keep:length]
        assert cut.name.startswith(f"{1:020d}-{keep}-")
        (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert cut.name in record.message
        assert "ends with frame 1" in record.message
        assert (record.event, record.seq, record.count) == ("list.end_cut", 1, length - keep)


def test_what_was_cut_does_not_come_back() -> None:
    files = Forgetful()
    frames = sealed([2, 3, 1], [0, 1, 1])
    begin(FOLDER, files=files)
    # The second frame is torn; the third, which was under way with it, is whole.
    torn = frames[0].data + bytes(len(frames[1].data)) + frames[2].data
    files.write(files.open(FIRST), 0, torn)
    with opened(FOLDER, files) as list_:
        assert hashes(list_) == [frames[0].link.hash]
        anew = add(list_, [3])
        assert len(anew[0].data) == len(frames[1].data)
        list_.flush()
    assert files.contents(FIRST) == frames[0].data + anew[0].data
    with opened(FOLDER, files) as list_:
        assert hashes(list_) == [frames[0].link.hash, anew[0].link.hash]
    (cut,) = files.paths(".cut")
    assert files.contents(cut) == torn[len(frames[0].data) :]


def test_the_same_end_cut_twice_is_kept_once_and_another_one_beside_it() -> None:
    files = Forgetful()
    begin(FOLDER, files=files)
    for junk in (b"some bytes", b"some bytes", b"others"):
        files.contents(FIRST)[:] = junk
        opened(FOLDER, files).close()
    assert [bytes(files.contents(path)) for path in files.paths(".cut")].count(b"others") == 1
    assert len(files.paths(".cut")) == 2


@pytest.mark.parametrize(
    "name", [segment_name(1), f"{1:020d}-400-{'ab' * 8}.cut", segment_name(1234)]
)
def test_what_a_crash_has_left_is_removed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    files = Forgetful()
    begin(FOLDER, files=files)
    for path in (scratch_name(name), "notes.tmp", f"{name}.copy"):
        written(files, FOLDER / path, b"half a fra")
    with opened(FOLDER, files) as list_:
        assert list_.last == GENESIS
    # Nothing else is touched.
    assert [path.name for path in files.paths(".tmp")] == ["notes.tmp"]
    assert f"{name}.copy" in snapshot(files)
    assert [r.event for r in caplog.records] == ["list.scratch_removed"]


def test_names_that_only_look_like_leftovers_are_not() -> None:
    for name in ("1.segment.tmp", f"{1:020d}.tmp", f"{1:020d}.segment", f"{1:020d}-x.cut.tmp"):
        assert not is_scratch(name)


# --- refused, and nothing changed -----------------------------------------------------------------


def refused(files: Forgetful, error: type[Exception], text: str, **changes: object) -> None:
    before, steps = snapshot(files), files.steps
    with pytest.raises(error, match=text):
        List.open(FOLDER, IDENTITY._replace(**changes), files=files)
    assert snapshot(files) == before
    assert files.steps == steps
    # The lock is free again.
    files.close(files.lock(FOLDER))


def three_segments() -> Forgetful:
    """Two sealed segments of two frames, and an open one of three."""
    files = Forgetful()
    list_ = begun(FOLDER, files, segment_bytes=800)
    for sizes in ([1, 1], [1, 1], [1, 1], [0]):
        add(list_, sizes)
        list_.flush()
    list_.close()
    assert [path.name for path in files.paths(".segment")] == [segment_name(n) for n in (1, 3, 5)]
    return files


def test_damage_in_the_last_segment_that_a_later_frame_vouches_for() -> None:
    files = three_segments()
    files.tamper(FOLDER / segment_name(5), 200, 255)
    refused(files, Damaged, f"{segment_name(5)}, frame at byte 0: .*it was frame 5")


def test_damage_at_the_end_of_a_sealed_segment_is_never_cut() -> None:
    files = three_segments()
    path = FOLDER / segment_name(3)
    for length in range(1, len(files.contents(path))):
        files.contents(path)[:] = files.contents(path)[:-1]
        if length % 40 == 0:
            refused(files, Damaged, f"{segment_name(3)}, frame at byte")


def test_a_segment_that_is_gone() -> None:
    files = three_segments()
    files.remove(FOLDER / segment_name(3))
    refused(files, Damaged, "seq of the last frame before is 2, and should be 4")


def test_the_first_segment_is_gone() -> None:
    files = three_segments()
    files.remove(FIRST)
    refused(files, Damaged, "first seq is 3, and should be 1")


def test_a_segment_under_a_wrong_name() -> None:
    files = three_segments()
    files.rename(FOLDER / segment_name(5), FOLDER / segment_name(6))
    refused(files, Damaged, "seq of the last frame before is 4, and should be 5")


def test_the_list_of_another_group() -> None:
    for files in (three_segments(), Forgetful()):
        if not files.paths(""):
            with begun(FOLDER, files) as list_:
                add(list_, [1])
        for part in ("cluster", "group"):
            refused(files, OtherList, f"{part} 0.*0009", **{part: IDENTITY.group.__class__(int=9)})
        refused(files, OtherList, "branch 1, and should be .*branch 2", branch=2)


def test_a_newer_format_in_the_last_segment_or_the_one_before() -> None:
    for first in (3, 5):
        files = three_segments()
        files.tamper(FOLDER / segment_name(first), 6, 2)
        refused(files, NewerFormat, f"{segment_name(first)}, frame at byte 0: its format is 2")


def test_a_second_one_is_refused() -> None:
    files = three_segments()
    with opened(FOLDER, files), pytest.raises(FolderInUse):
        opened(FOLDER, files)


# --- the system refuses ---------------------------------------------------------------------------


def test_whatever_fails_while_it_is_opened_it_can_be_opened_later() -> None:
    files = three_segments()
    files.contents(FOLDER / segment_name(5)).extend(b"torn")
    for step in range(1, 13):
        files.faults = {files.steps + step: "error-half"}
        with pytest.raises(FileFailed, match="failed"):
            opened(FOLDER, files)
    files.faults = {}
    with opened(FOLDER, files) as list_:
        assert list_.last.seq == 7
    assert files.paths(".tmp") == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for call in (lambda: begin(tmp_path / "no"), lambda: List.open(tmp_path / "no", IDENTITY)):
        with pytest.raises(FileFailed, match="no: No such file") as failed:
            call()
        assert failed.value.errno == errno.ENOENT


class ReadOnly(Forgetful):
    """A folder in which nothing can be made, changed or removed."""

    def _step(self, what: str, *effects: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", what)


def test_a_folder_that_is_read_only() -> None:
    files = three_segments()
    files.__class__ = ReadOnly
    with pytest.raises(FileFailed, match=r"Read-only file system.*its permissions") as failed:
        opened(FOLDER, files)
    assert failed.value.errno == errno.EROFS
