"""Appending and flushing: what is promised when, and what ends a list."""

from collections.abc import Callable
from pathlib import Path

import pytest

from eventstore.rows import COMMAND
from eventstore.segments.errors import DiskAlmostFull, FileFailed, ListDead, NotThere, Where
from eventstore.segments.frame import FRAME_BYTES_MAX, HEADER_BYTES, decode
from eventstore.segments.names import segment_name
from eventstore.segments.writer import List
from ledger.errors import Bug
from tests.eventstore.drafts import add, begun, body, draft, drafts, hashes, opened
from tests.eventstore.forgetful import Fault, Forgetful

FOLDER = Path("/group")
HERE = Where("", 0)


@pytest.fixture
def files() -> Forgetful:
    return Forgetful()


def test_what_is_appended_is_flushed_by_the_next_flush(files: Forgetful) -> None:
    with begun(FOLDER, files) as list_:
        first = add(list_, [1, 0])
        assert (list_.last, list_.flushed) == (first[-1].link, 0)
        assert list_.flush() == list_.flushed == 2
        second = add(list_, [3])
        assert (list_.last.seq, list_.flushed) == (3, 2)
        assert hashes(list_) == [frame.link.hash for frame in first + second]
        # Nobody who names no bound sees what is not flushed.
        assert [frame.header.seq for frame in list_.read()] == [1, 2]


def test_a_flush_of_nothing_asks_nothing_of_the_disk(files: Forgetful) -> None:
    with begun(FOLDER, files) as list_:
        steps = files.steps
        assert list_.append([]) == []
        assert list_.flush() == 0
        assert files.steps == steps


def test_a_frame_says_how_far_the_list_was_flushed(files: Forgetful) -> None:
    with begun(FOLDER, files) as list_:
        add(list_, [1, 1])
        list_.flush()
        add(list_, [1])
        add(list_, [0])
        list_.flush()
        add(list_, [0])
        said = [frame.header.flushed for frame in list_.read(until=5)]
        assert said == [0, 0, 2, 2, 4]


def test_what_is_appended_is_given_back_as_it_stands(files: Forgetful) -> None:
    with begun(FOLDER, files) as list_:
        frames = add(list_, [5, 0, 2])
        for frame in frames:
            found = list_.find(frame.link.seq)
            assert decode(frame.data, HERE).header == found.header
            assert found.body.texts == decode(frame.data, HERE).body.texts


# --- segments -------------------------------------------------------------------------------------


def test_a_new_segment_is_there_before_a_frame_in_it(files: Forgetful) -> None:
    with begun(FOLDER, files, segment_bytes=500) as list_:
        before = files.steps
        add(list_, [0, 0, 0])
        list_.flush()
        assert files.done[before:] == [
            "write",
            "write",
            # All that was in the segment before; the new one; its name; and only then its frame.
            "flush",
            f"create {segment_name(3)}",
            "flush",
            "flush folder",
            "write",
            "flush",
        ]


def test_segments_are_of_the_size_that_is_asked_for(files: Forgetful) -> None:
    with begun(FOLDER, files, segment_bytes=3 * HEADER_BYTES) as list_:
        add(list_, [0] * 7)
        assert [path.name for path in files.paths(".segment")] == [
            segment_name(n) for n in (1, 4, 7)
        ]
        # What is larger than a segment has one for itself.
        add(list_, [40, 0])
        assert [path.name for path in files.paths(".segment")][3:] == [
            segment_name(n) for n in (8, 9)
        ]


def test_appending_goes_on_in_the_open_segment(files: Forgetful) -> None:
    made = []
    begun(FOLDER, files).close()
    for _ in range(4):
        with opened(FOLDER, files, segment_bytes=3 * HEADER_BYTES) as list_:
            made += [frame.link.hash for frame in add(list_, [0, 0])]
            assert list_.flush() == len(made)
            assert hashes(list_) == made
    assert len(files.paths(".segment")) == 3


# --- refused before anything is written -----------------------------------------------------------


def test_drafts_that_do_not_follow_change_nothing(files: Forgetful) -> None:
    with begun(FOLDER, files) as list_:
        add(list_, [1])
        last, steps = list_.last, files.steps
        one, two = drafts(last, [1, 1])
        for wrong in ([two], [one, one], [one, two._replace(time_us=one.time_us)]):
            with pytest.raises(Bug, match="cannot be appended"):
                list_.append(wrong)
        large = draft(last, content=body(FRAME_BYTES_MAX // COMMAND.itemsize))
        with pytest.raises(Bug, match="more than"):
            list_.append([large])
        assert (list_.last, files.steps) == (last, steps)
        assert list_.append([one, two])[-1].link.seq == 3


def test_a_disk_that_is_almost_full_refuses_before_it_is(files: Forgetful) -> None:
    with begun(FOLDER, files) as list_:
        add(list_, [1])
        steps, size = files.steps, HEADER_BYTES
        files.space = 1000 + 2 * size - 1
        with pytest.raises(DiskAlmostFull, match="Nothing was written") as refused:
            add(list_, [0, 0])
        assert (refused.value.room, refused.value.wanted) == (files.space, 2 * size)
        assert refused.value.room_min == 1000
        assert files.steps == steps
        # What is there can be flushed, and with more room the same is appended.
        assert list_.flush() == 1
        files.space += 1
        assert list_.room() == files.space
        assert add(list_, [0, 0])[-1].link.seq == 3


# --- the end of a list ----------------------------------------------------------------------------

CALLS: list[Callable[[List], object]] = [
    lambda list_: list_.append([]),
    lambda list_: list_.flush(),
    lambda list_: list_.room(),
    lambda list_: list_.read(),
    lambda list_: list_.find(1),
]


@pytest.mark.parametrize("fault", ["error", "error-half"])
# A large frame begins a new segment, in steps: flush, create, flush, flush the folder, write.
@pytest.mark.parametrize(
    ("what", "step"), [("write", 1), ("flush", 1), *(("roll", step) for step in range(1, 6))]
)
def test_a_write_or_flush_that_fails_is_the_end(
    files: Forgetful, what: str, step: int, fault: Fault
) -> None:
    list_ = begun(FOLDER, files, segment_bytes=400)
    add(list_, [0])
    list_.flush()
    if what == "flush":
        add(list_, [0])
    files.faults = {files.steps + step: fault}
    with pytest.raises(FileFailed, match=r"/group/0.*\.segment: .*failed"):
        list_.flush() if what == "flush" else add(list_, [40] if what == "roll" else [0])
    files.faults = {}
    for call in CALLS:
        with pytest.raises(ListDead, match=r"one has failed: .*failed"):
            call(list_)
    list_.close()
    with opened(FOLDER, files) as list_:
        # The second one is whole if its write did not fail.
        assert list_.last.seq == (2 if what == "flush" else 1)


def test_a_disk_that_fills_up_in_the_middle_of_a_frame(files: Forgetful) -> None:
    list_ = begun(FOLDER, files)
    (first,) = add(list_, [2])
    list_.flush()
    files.faults = {files.steps + 1: "error-half"}
    with pytest.raises(FileFailed, match="write failed"):
        add(list_, [30])
    files.faults = {}
    list_.close()
    with opened(FOLDER, files) as list_:
        assert list_.last == first.link
    assert len(files.paths(".cut")) == 1


def test_an_interrupt_in_the_middle_is_the_end_too(
    files: Forgetful, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with begun(FOLDER, files) as list_:
        monkeypatch.setattr(files, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add(list_, [1])
        with pytest.raises(ListDead, match="KeyboardInterrupt"):
            list_.flush()


def test_a_list_that_was_closed_takes_no_calls(files: Forgetful) -> None:
    list_ = begun(FOLDER, files)
    list_.close()
    list_.close()
    for call in CALLS:
        with pytest.raises(ListDead, match="it was closed"):
            call(list_)


def test_there_is_nothing_behind_the_end(files: Forgetful) -> None:
    with begun(FOLDER, files) as list_:
        add(list_, [1])
        with pytest.raises(NotThere, match=r"frame 2 was asked for, and .* ends with frame 1"):
            list_.find(2)
        with pytest.raises(NotThere):
            list_.read(until=2)
        assert list_.find(1).header.seq == 1
