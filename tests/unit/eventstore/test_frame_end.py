"""Where a list ends: what is torn is cut, and what is damaged is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.segments.chain import GENESIS, Sealed
from eventstore.segments.errors import Damaged, NewerFormat, OtherList
from eventstore.segments.tail import End, decide_end
from tests.eventstore.drafts import IDENTITY, sealed

SIZES = [3, 0, 5, 1]


def end_of(data: bytes) -> End:
    return decide_end(data, "a file", GENESIS, IDENTITY)


def starts(frames: list[Sealed]) -> list[int]:
    return [sum(len(frame.data) for frame in frames[:n]) for n in range(len(frames) + 1)]


def joined(frames: list[Sealed]) -> bytes:
    return b"".join(frame.data for frame in frames)


def broken(frame: Sealed) -> bytes:
    return frame.data[:-1] + bytes([frame.data[-1] ^ 1])


def test_no_frame_at_all() -> None:
    assert end_of(b"") == (0, GENESIS, None)


def test_all_of_it_is_whole() -> None:
    frames = sealed(SIZES, [0, 1, 1, 3])
    assert end_of(joined(frames)) == (len(joined(frames)), frames[-1].link, None)


def test_a_last_frame_torn_at_every_byte_is_cut() -> None:
    frames = sealed(SIZES, [0, 1, 1, 3])
    whole = joined(frames[:-1])
    frame = frames[-1].data
    for length in range(1, len(frame)):
        for rest in (b"", bytes(len(frame) - length), b"\xff" * 600):
            kept = frame[:length] + rest
            # It may be whole again: it ends with zeros. No sector ends in its first 8 bytes.
            if kept.startswith(frame) or (rest and length < 8):
                continue
            size, last, why = end_of(whole + kept)
            assert (size, last) == (len(whole), frames[-2].link)
            assert why is not None
            assert why.offset == len(whole)


def test_zeros_behind_the_end_are_cut() -> None:
    frames = sealed(SIZES, [0, 1, 1, 3])
    size, last, why = end_of(joined(frames) + bytes(4096))
    assert (size, last) == (len(joined(frames)), frames[-1].link)
    assert why is not None
    assert why.what == "magic"


@pytest.mark.parametrize("vouching", [1, 2, 3])
def test_a_broken_frame_that_a_later_one_vouches_for_is_damage(vouching: int) -> None:
    frames = sealed([3, 0, 5, 1, 0], [0] * (vouching + 1) + [1] * (4 - vouching))
    data = broken(frames[0]) + joined(frames[1:])
    if vouching < 4:
        with pytest.raises(Damaged, match="it was frame 1, and it was flushed") as refused:
            end_of(data)
        assert refused.value.offset == 0
        assert f"frame {vouching + 2}, at byte {starts(frames)[vouching + 1]}" in str(refused.value)


def test_whole_frames_behind_a_broken_one_vouch_for_nothing_by_being_whole() -> None:
    frames = sealed([3, 2, 5, 1], [0, 1, 1, 1])
    data = frames[0].data + broken(frames[1]) + joined(frames[2:])
    size, last, why = end_of(data)
    assert (size, last) == (len(frames[0].data), frames[0].link)
    assert why is not None
    assert why.what == "hash"


def test_the_first_of_two_broken_frames_is_what_is_vouched_for() -> None:
    data = [frame.data for frame in sealed([3, 2, 5, 1], [0, 0, 0, 1])]
    first, second = (broken(frame) for frame in sealed([3, 2], [0, 0]))
    with pytest.raises(Damaged, match="it was frame 1") as refused:
        end_of(first + second + data[2] + data[3])
    assert refused.value.offset == 0
    # It says nothing of the second one; what is before it is believed, and the rest is cut.
    size, last, _ = end_of(data[0] + second + data[2] + data[3])
    assert (size, last.seq) == (len(data[0]), 1)


@given(st.integers(0, 175), st.integers(1, 255))
def test_a_later_frame_is_found_whatever_is_wrong_with_the_header(at: int, change: int) -> None:
    frames = sealed([1, 3, 0], [0, 0, 2])
    data = bytearray(joined(frames))
    data[len(frames[0].data) + at] ^= change
    with pytest.raises((Damaged, NewerFormat)) as refused:
        end_of(bytes(data))
    assert refused.value.offset == len(frames[0].data)


def test_a_frame_lost_as_a_whole_is_vouched_for_where_it_was() -> None:
    frames = sealed([1, 3, 0], [0, 0, 2])
    data = frames[0].data + bytes(len(frames[1].data)) + frames[2].data
    with pytest.raises(Damaged, match="magic is 000000000000") as refused:
        end_of(data)
    assert refused.value.offset == len(frames[0].data)


def test_a_frame_taken_out_is_damage() -> None:
    frames = sealed([1, 3, 0], [0, 0, 0])
    with pytest.raises(Damaged, match="seq is 3, and should be 2"):
        end_of(frames[0].data + frames[2].data)


def test_a_whole_frame_on_another_one_is_damage_although_nothing_vouches() -> None:
    frames, others = sealed([1, 1], [0, 0]), sealed([2, 1], [0, 0], salt=1)
    with pytest.raises(Damaged, match="hash of the frame before"):
        end_of(frames[0].data + others[1].data)


def test_another_list_is_not_cut() -> None:
    other = IDENTITY._replace(branch=2)
    for data in (joined(sealed([1, 2], [0, 1])), joined(sealed([0], [0]))):
        with pytest.raises(OtherList, match=r"branch 1, and should be .*branch 2"):
            decide_end(data, "a file", GENESIS, other)


@pytest.mark.parametrize("at", [0, 1])
def test_a_newer_format_is_not_cut(at: int) -> None:
    frames = sealed([1, 2, 0], [0, 0, 0])
    data = bytearray(joined(frames))
    data[starts(frames)[2] + 6] = 2
    if at:
        # Nor behind something broken: it may vouch, and nobody here can tell.
        data[starts(frames)[1] + 100] ^= 1
    with pytest.raises(NewerFormat) as refused:
        end_of(bytes(data))
    assert refused.value.offset == starts(frames)[2]


def test_frames_at_odd_places_vouch_for_nothing() -> None:
    frames = sealed([1, 3, 0], [0, 0, 2])
    data = frames[0].data + b"xxx" + joined(frames[1:])
    size, _, why = end_of(data)
    assert size == len(frames[0].data)
    assert why is not None


@given(st.data())
def test_what_is_believed_is_what_was_written(data: st.DataObject) -> None:
    """Whatever becomes of what was not flushed, sector by sector, nothing else is believed."""
    sizes = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=6))
    flushed = data.draw(st.integers(0, len(sizes)))
    so_far = [min(flushed, n) for n in range(len(sizes))]
    frames = sealed(sizes, so_far)
    keep = starts(frames)[flushed]
    kept = bytearray(joined(frames))
    for sector in range(keep // 512, len(kept) // 512 + 1):
        if data.draw(st.booleans()):
            begin = max(keep, sector * 512)
            kept[begin : (sector + 1) * 512] = bytes(len(kept[begin : (sector + 1) * 512]))
    size, last, _ = end_of(bytes(kept))
    assert flushed <= last.seq
    assert bytes(kept[:size]) == joined(frames[: last.seq])
