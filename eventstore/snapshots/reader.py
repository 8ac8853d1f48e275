"""Finds the newest snapshot that can be used, and loads it. Nothing is written or locked."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from eventstore.machine.machine import VERSION, Machine
from eventstore.segments.chain import Link, link_of
from eventstore.segments.errors import NotThere, translated
from eventstore.segments.files import DISK, Files
from eventstore.segments.frame import Identity
from eventstore.segments.reader import Reader
from eventstore.snapshots.blocks import BlockReader
from eventstore.snapshots.errors import NotOfThisList, SnapshotDamaged
from eventstore.snapshots.header import Header
from eventstore.snapshots.names import snapshot_name, snapshot_seqs

log = logging.getLogger(__name__)

# More than any list has.
_ANY = 2**64


class Loaded(NamedTuple):
    """A machine with the state of a snapshot, the frame after which that is, and the file."""

    machine: Machine
    link: Link
    path: Path


def newest(
    folder: Path,
    identity: Identity,
    is_in_list: Callable[[Link], bool],
    new_machine: Callable[[], Machine],
    *,
    seq_max: int = _ANY,
    time_max_us: int = _ANY,
    files: Files = DISK,
) -> Loaded | None:
    """Load the newest snapshot that is whole and belongs to the list, of those after no later frame
    and no later time than these. None if there is none, or no folder.

    `new_machine` makes a machine without a frame. What is damaged is passed over, and logged as
    `snapshot.damaged`; so is what is not of this list, as `snapshot.discarded` (rule E15). Raises
    LimitReached if the state is larger than the machine may be, and what `is_in_list` raises.
    """
    for seq in reversed(seqs(folder, files)):
        if seq > seq_max:
            continue
        path = folder / snapshot_name(seq)
        with _passed_over(path):
            blocks = BlockReader(path, files)
            link = check_header(blocks.header, path, seq, identity, is_in_list)
            if link.time_us <= time_max_us:
                return Loaded(_load(blocks, path, new_machine()), link, path)
    return None


def seqs(folder: Path, files: Files = DISK) -> list[int]:
    """The frames after which there are snapshots, rising; whether they can be used is not known."""
    with translated(folder), suppress(FileNotFoundError):
        return snapshot_seqs(files.names(folder))
    return []


def in_list(reader: Reader) -> Callable[[Link], bool]:
    """Whether a frame is in the list that is read so. It raises ListError if that is damaged."""

    def is_in_list(link: Link) -> bool:
        try:
            return link_of(reader.find(link.seq).header) == link
        except NotThere:
            return False

    return is_in_list


def check_header(
    header: Header, path: Path, seq: int, identity: Identity, is_in_list: Callable[[Link], bool]
) -> Link:
    """The frame of a snapshot with this name. Raises SnapshotDamaged, NotOfThisList."""
    file, link = str(path), header.link
    if link.seq != seq:
        raise SnapshotDamaged(file, 0, "seq, by its name,", link.seq, seq)
    if header.identity != identity:
        raise NotOfThisList(file, "list", header.identity, identity)
    # An older one has the same state, without attempts.
    if header.machine > VERSION:
        raise NotOfThisList(file, "version of the machine", header.machine, f"at most {VERSION}")
    if not is_in_list(link):
        told = f"{seq}, with the hash {link.hash.hex()},"
        raise NotOfThisList(file, "its frame", told, "in the list")
    return link


def _load(blocks: BlockReader, path: Path, machine: Machine) -> Machine:
    machine.load(blocks.header.sizes, blocks.fill)
    blocks.check_rest()
    found, expected = machine.digest(), blocks.header.digest
    if found != expected:
        raise SnapshotDamaged(str(path), 0, "digest of the state", found.hex(), expected.hex())
    return machine


@contextmanager
def _passed_over(path: Path) -> Iterator[None]:
    """Log why a snapshot is not used."""
    try:
        yield
    except FileNotFoundError:
        # Two newer ones are there since: whoever has made them has removed it.
        pass
    except SnapshotDamaged as error:
        extra = {
            "event": "snapshot.damaged",
            "file": path.name,
            "offset": error.offset,
            "found": str(error.found),
            "expected": str(error.expected),
        }
        log.error("a snapshot is passed over: %s", error, extra=extra)
    except NotOfThisList as error:
        extra = {
            "event": "snapshot.discarded",
            "file": path.name,
            "found": str(error.found),
            "expected": str(error.expected),
        }
        log.error("a snapshot is discarded: %s", error, extra=extra)
