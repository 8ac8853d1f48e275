"""Snapshots on real files: what is damaged, or of another list, is passed over and named."""

import errno
import logging
from pathlib import Path
from uuid import UUID

import pytest

from eventstore.machine.errors import LimitReached
from eventstore.machine.machine import VERSION, Limits, Machine
from eventstore.segments.chain import Link
from eventstore.segments.errors import DiskAlmostFull, FileFailed, FolderInUse
from eventstore.segments.files import DISK, Disk
from eventstore.snapshots.header import HEADER_BYTES
from eventstore.snapshots.names import scratch_name, snapshot_name
from eventstore.snapshots.reader import newest, seqs
from eventstore.snapshots.writer import write
from ledger.errors import Bug
from tests.eventstore.groups import GROUP
from tests.eventstore.states import BLOCK_BYTES, found, kept, link, machine_at, new_machine

DIGESTS = {seq: machine_at(seq).digest() for seq in range(1, 7)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What was logged: the event, and the file."""
    told = [(record.event, record.file) for record in caplog.records]  # type: ignore[attr-defined]
    caplog.clear()
    return told


def test_the_newest_is_found_and_two_are_kept(folder: Path) -> None:
    assert found(folder) is None
    for seq in (1, 3, 4, 6):
        path = kept(folder, seq)
        assert path == folder / snapshot_name(seq)
        loaded = found(folder)
        assert loaded is not None
        assert (loaded.link, loaded.path) == (link(seq), path)
        assert loaded.machine.digest() == DIGESTS[seq]
    assert seqs(folder) == [4, 6]


def test_one_of_an_earlier_frame_or_time(folder: Path) -> None:
    kept(folder, 2)
    kept(folder, 5)
    whose = folder, GROUP, lambda each: True, new_machine
    for bound, expected in (
        ({"seq_max": 5}, 5),
        ({"seq_max": 4}, 2),
        ({"seq_max": 1}, None),
        ({"time_max_us": link(5).time_us}, 5),
        ({"time_max_us": link(5).time_us - 1}, 2),
        ({"time_max_us": link(2).time_us - 1}, None),
    ):
        loaded = newest(*whose, **bound)
        assert (loaded and loaded.link.seq) == expected, bound


def test_every_changed_byte_is_noticed_and_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(folder, 2)
    path = kept(folder, 5)
    whole = path.read_bytes()
    assert len(whole) > HEADER_BYTES + 2 * BLOCK_BYTES
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        loaded = found(folder)
        assert loaded is not None
        assert loaded.machine.digest() == DIGESTS[2], at
        (record,) = caplog.records
        # Where the block begins in which it is.
        block = (at - HEADER_BYTES) // (BLOCK_BYTES + 32)
        offset = 0 if at < HEADER_BYTES else HEADER_BYTES + block * (BLOCK_BYTES + 32)
        is_format = at in (6, 7)
        assert record.levelno == logging.ERROR
        assert record.event == ("snapshot.discarded" if is_format else "snapshot.damaged")
        if not is_format:
            assert f"{path}, at byte {offset}: " in record.getMessage(), at
            assert record.offset == offset
            assert record.found != record.expected
        caplog.clear()
    path.write_bytes(whole)
    assert found(folder).link == link(5)


def test_a_torn_one_and_one_that_goes_on_are_passed_over(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(folder, 2)
    path = kept(folder, 5)
    whole = path.read_bytes()
    torn = [whole[:at] for at in range(0, len(whole), 3)]
    for data in [*torn, whole[:-1], whole + b"\0", whole + whole]:
        path.write_bytes(data)
        assert found(folder).machine.digest() == DIGESTS[2], len(data)
        assert events(caplog) == [("snapshot.damaged", path.name)]


def test_blocks_in_another_order_are_damage(folder: Path) -> None:
    path = kept(folder, 5)
    whole, block = path.read_bytes(), BLOCK_BYTES + 32
    head, first, second, rest = (
        whole[:HEADER_BYTES],
        whole[HEADER_BYTES : HEADER_BYTES + block],
        whole[HEADER_BYTES + block : HEADER_BYTES + 2 * block],
        whole[HEADER_BYTES + 2 * block :],
    )
    path.write_bytes(head + second + first + rest)
    assert found(folder) is None


def test_one_under_another_name_is_damage(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept(folder, 5).rename(folder / snapshot_name(6))
    assert found(folder) is None
    assert "seq, by its name, is 5, and should be 6" in caplog.text


def test_without_any_that_is_good_there_is_none(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seq in (2, 5):
        kept(folder, seq).write_bytes(b"")
    assert found(folder) is None
    assert events(caplog) == [("snapshot.damaged", snapshot_name(seq)) for seq in (5, 2)]


def test_what_cannot_be_read_is_passed_over(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept(folder, 2)
    path = kept(folder, 5)

    class BadSector(Disk):
        def read(self, where: Path, offset: int, length: int) -> bytes:
            if where == path and offset > HEADER_BYTES:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(where, offset, length)

    assert found(folder, BadSector()).link == link(2)
    assert events(caplog) == [("snapshot.damaged", path.name)]


def test_one_that_is_removed_meanwhile(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept(folder, 2)
    path = kept(folder, 5)

    class Removed(Disk):
        def read(self, where: Path, offset: int, length: int) -> bytes:
            if offset:
                path.unlink(missing_ok=True)
            return super().read(where, offset, length)

    assert found(folder, Removed()).link == link(2)
    assert events(caplog) == []


# --- those of other lists -----------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"cluster": UUID(int=9)}, {"group": UUID(int=9)}, {"branch": 1}])
def test_one_of_another_group_is_discarded(
    folder: Path, other: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    kept(folder, 2)
    path = write(folder, GROUP._replace(**other), link(5), machine_at(5), room_bytes_min=0)
    assert found(folder).link == link(2)
    assert events(caplog) == [("snapshot.discarded", path.name)]


@pytest.mark.parametrize("other", [{"hash": bytes(32)}, {"epoch": 2}, {"time_us": 1}])
def test_one_of_another_past_is_discarded(
    folder: Path, other: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    kept(folder, 2)
    past: Link = link(5)._replace(**other)
    path = write(folder, GROUP, past, machine_at(5), room_bytes_min=0)
    assert found(folder).link == link(2)
    assert events(caplog) == [("snapshot.discarded", path.name)]


def test_one_of_a_newer_version_of_the_machine_is_discarded(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(folder, 2)
    monkeypatch.setattr("eventstore.snapshots.writer.VERSION", VERSION + 1)
    path = kept(folder, 5)
    assert found(folder).link == link(2)
    assert f"the machine is {VERSION + 1}, and should be at most {VERSION}" in caplog.text
    assert events(caplog) == [("snapshot.discarded", path.name)]


def test_a_state_that_is_not_what_its_header_says(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a fault of memory, or of our own, would make it."""
    monkeypatch.setattr(Machine, "digest", lambda self: bytes(32))
    path = kept(folder, 5)
    monkeypatch.undo()
    assert found(folder) is None
    assert f"digest of the state is {DIGESTS[5].hex()}, and should be {bytes(32).hex()}" in (
        caplog.text
    )
    assert events(caplog) == [("snapshot.damaged", path.name)]


# --- writing ------------------------------------------------------------------------------------


def test_those_behind_it_are_not_counted(folder: Path) -> None:
    """They are of a list that was set back: what is good is not removed for them."""
    for seq in (4, 5, 6):
        kept(folder, seq)
    for seq in (1, 2, 3):
        kept(folder, seq)
    assert seqs(folder) == [2, 3, 5, 6]
    kept(folder, 5)
    assert seqs(folder) == [3, 5, 6]


def test_a_crash_has_left_something(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder.mkdir()
    (folder / scratch_name(5)).write_bytes(b"half")
    (folder / "notes.txt").write_text("somebody's own")
    assert found(folder) is None
    path = kept(folder, 5)
    assert events(caplog) == [("snapshot.scratch_removed", scratch_name(5))]
    assert {each.name for each in folder.iterdir()} == {path.name, "notes.txt", "holder"}


def test_one_at_a_time_writes(folder: Path) -> None:
    folder.mkdir()
    lock = DISK.lock(folder)
    with pytest.raises(FolderInUse):
        kept(folder, 5)
    DISK.close(lock)
    kept(folder, 5)


def test_a_disk_that_is_almost_full_stays_so(folder: Path) -> None:
    path = kept(folder, 2)

    class Full(Disk):
        room_bytes = 10_000 + HEADER_BYTES

        def room(self, folder: Path) -> int:
            return self.room_bytes

    full = Full()
    where = folder, GROUP, link(3), machine_at(3), full
    with pytest.raises(DiskAlmostFull, match="Make room"):
        write(*where, room_bytes_min=10_000)
    assert list(folder.glob("*.snapshot*")) == [path]
    full.room_bytes += 1000
    write(*where, room_bytes_min=10_000)
    assert seqs(folder) == [2, 3]


def test_a_write_that_fails_leaves_nothing(folder: Path) -> None:
    kept(folder, 2)

    class Failing(Disk):
        def write(self, file: int, offset: int, data: bytes) -> None:
            if offset:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(file, offset, data)

    with pytest.raises(FileFailed, match="No space left"):
        kept(folder, 5, Failing())
    assert {each.name for each in folder.iterdir()} == {snapshot_name(2), "holder"}
    kept(folder, 5)


def test_a_machine_at_another_frame_is_our_own_mistake(folder: Path) -> None:
    with pytest.raises(Bug, match="after frame 4 was asked of a machine at 5"):
        write(folder, GROUP, link(4), machine_at(5))


def test_a_state_that_is_larger_than_the_machine_may_be(folder: Path) -> None:
    kept(folder, 5)

    def small() -> Machine:
        return Machine(bytes(16), lambda place: None, Limits(accounts=1))  # type: ignore[arg-type,return-value]

    with pytest.raises(LimitReached, match="limit of 1 accounts"):
        newest(folder, GROUP, lambda each: True, small)
