"""Reading: only what holds, only up to the bound, and whatever becomes of the files meanwhile."""

from pathlib import Path

import numpy as np
import pytest

from eventstore.rows import COMMAND, DETAIL, Outcomes
from eventstore.segments import reader as reader_module
from eventstore.segments.errors import Damaged, NewerFormat, NoList, NotThere, OtherList
from eventstore.segments.frame import FRAME_BYTES_MAX, HEADER_BYTES, Body
from eventstore.segments.names import segment_name
from eventstore.segments.reader import Reader
from ledger.errors import Bug
from tests.eventstore.drafts import IDENTITY, add, begun, draft, opened
from tests.eventstore.forgetful import Forgetful

FOLDER = Path("/group")


def reader(files: Forgetful) -> Reader:
    return Reader(FOLDER, IDENTITY, files=files)


def seqs(reader_: Reader, start: int, until: int) -> list[int]:
    return [frame.header.seq for frame in reader_.read(start, until=until)]


@pytest.fixture
def files() -> Forgetful:
    """Frames 1 to 11 in segments of some three; the last two are not flushed."""
    files = Forgetful()
    list_ = begun(FOLDER, files, segment_bytes=800)
    for sizes in ([1, 2], [0], [3, 0, 0, 1], [2, 1]):
        add(list_, sizes)
        list_.flush()
    add(list_, [1, 0])
    assert len(files.paths(".segment")) >= 4
    return files


def test_every_part_of_a_list(files: Forgetful) -> None:
    for start in range(1, 12):
        for until in range(start - 1, 12):
            assert seqs(reader(files), start, until) == list(range(start, until + 1))


def test_every_frame_by_its_number_in_any_order(files: Forgetful) -> None:
    whole = list(reader(files).read(until=11))
    for order in (range(1, 12), range(11, 0, -1), (5, 11, 1, 8, 5)):
        one = reader(files)
        for seq in order:
            assert one.find(seq).header == whole[seq - 1].header


def test_few_indexes_are_enough(files: Forgetful, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_INDEXES_MAX", 1)
    one = reader(files)
    assert [one.find(seq).header.seq for seq in (9, 1, 5, 2, 11)] == [9, 1, 5, 2, 11]
    assert seqs(one, 3, 11) == list(range(3, 12))
    assert len(one._indexes) == 1


def test_nothing_behind_the_end_or_before_the_beginning(files: Forgetful) -> None:
    with pytest.raises(NotThere, match=r"frame 12 was asked for, and .* ends with frame 11"):
        reader(files).find(12)
    with pytest.raises(NotThere):
        seqs(reader(files), 10, 12)
    with pytest.raises(Bug, match="numbered from 1"):
        reader(files).find(0)
    with pytest.raises(NoList):
        reader(Forgetful()).find(1)
    with pytest.raises(OtherList):
        Reader(FOLDER, IDENTITY._replace(branch=7), files=files).find(3)


def test_what_is_behind_the_bound_is_not_looked_at(files: Forgetful) -> None:
    path = files.paths(".segment")[-1]
    index = [frame.header.seq for frame in reader(files).read(until=11)].index(11)
    files.contents(path)[-HEADER_BYTES:] = b"half a frame"
    assert index == 10
    assert seqs(reader(files), 1, 10) == list(range(1, 11))
    assert reader(files).find(10).header.seq == 10
    with pytest.raises(Damaged):
        reader(files).find(11)


def test_a_reader_goes_on_while_the_list_grows_and_is_opened_anew(files: Forgetful) -> None:
    one = reader(files)
    assert one.find(11).header.seq == 11
    frames = one.read(until=20)
    seen = [next(frames).header.seq for _ in range(9)]
    files.kill()
    # The last segment is another file now.
    list_ = opened(FOLDER, files, segment_bytes=800)
    assert list_.last.seq == 11
    for sizes in ([4, 0], [1], [0, 0, 3, 1, 1, 1]):
        add(list_, sizes)
        list_.flush()
    seen += [frame.header.seq for frame in frames]
    assert seen == list(range(1, 21))
    assert one.find(20).header.seq == 20


def test_frames_across_what_is_read_at_once() -> None:
    """Frames of the largest size, and of the smallest, in one segment."""
    files = Forgetful()
    rows = (FRAME_BYTES_MAX - HEADER_BYTES) // (COMMAND.itemsize + 1)
    large = Body(
        np.zeros(rows, COMMAND), Outcomes(np.zeros(rows, np.uint8), np.zeros(0, DETAIL)), b""
    )
    list_ = begun(FOLDER, files, segment_bytes=2**30)
    for at in range(19):
        list_.append([draft(list_.last, content=large if at % 3 else None)])
    list_.flush()
    assert files.paths(".segment") == [FOLDER / segment_name(1)]
    assert [frame.header.seq for frame in list_.read()] == list(range(1, 20))
    assert list_.find(18).length > 2**19
    files.kill()
    assert opened(FOLDER, files).last.seq == 19


# --- damage ---------------------------------------------------------------------------------------


def test_every_bit_of_every_frame_is_missed_and_named(files: Forgetful) -> None:
    """In each segment, sealed or open, by who reads it; the file and the frame are named."""
    places = []
    for frame in reader(files).read(until=11):
        path = max(
            path for path in files.paths(".segment") if int(path.name[:20]) <= frame.header.seq
        )
        at = 0 if not places or places[-1][0] != path else places[-1][1] + places[-1][2]
        places.append((path, at, frame.length))
    for seq, (path, at, length) in enumerate(places, 1):
        contents = files.contents(path)
        for byte in range(at, at + length, 3 if seq > 4 else 1):
            contents[byte] ^= 1 << byte % 8
            one = reader(files)
            with pytest.raises((Damaged, NewerFormat)) as refused:
                list(one.read(until=11))
            assert (refused.value.file, refused.value.offset) == (str(path), at)
            with pytest.raises((Damaged, NewerFormat)):
                one.find(seq)
            contents[byte] ^= 1 << byte % 8
    assert seqs(reader(files), 1, 11) == list(range(1, 12))


def test_a_frame_of_the_open_segment_is_damage_exactly_if_it_is_vouched_for() -> None:
    """Flushed are frames 1 to 4. Frames 5 and 6 were made after that; their flush is not seen."""
    files, starts = Forgetful(), [0]
    list_ = begun(FOLDER, files)
    for sizes in ([1, 0], [3, 1], [2, 0]):
        starts += [starts[-1] + len(frame.data) for frame in add(list_, sizes)[:1]]
        starts += [starts[-1] + list_.find(list_.last.seq).length]
        list_.flush()
    files.kill()
    path = FOLDER / segment_name(1)
    whole = bytes(files.contents(path))
    assert starts.pop() == len(whole)
    for seq, start in enumerate(starts, 1):
        for byte in (0, 3, 10, 30, 45, 48, 53, 64, 72, 80, 88, 96, 105, 120, 150, 175):
            files.contents(path)[:] = whole
            files.contents(path)[start + byte] ^= 8
            if seq <= 4:
                with pytest.raises(Damaged, match=f"it was frame {seq}, and it was") as refused:
                    opened(FOLDER, files)
                assert (refused.value.file, refused.value.offset) == (str(path), start)
                assert files.paths(".cut") == []
            else:
                opened(FOLDER, files).close()
                (cut,) = files.paths(".cut")
                assert len(files.contents(cut)) == len(whole) - start
                files.remove(cut)
