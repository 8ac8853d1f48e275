"""Writes snapshots, beside a list and its node: never by the node, which has no time for it.

A snapshot is written into another file, that is flushed, and the folder; it takes its name; the
folder is flushed; only then are older ones removed. So there is never one under its name that was
not whole, and always one that is, when there has once been one.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eventstore.machine.machine import VERSION, Machine
from eventstore.segments.chain import Link
from eventstore.segments.errors import DiskAlmostFull, translated
from eventstore.segments.files import DISK, Files
from eventstore.segments.frame import Identity
from eventstore.segments.writer import ROOM_BYTES_MIN as LIST_ROOM_BYTES_MIN
from eventstore.snapshots.blocks import BLOCK_BYTES, BlockWriter, file_bytes
from eventstore.snapshots.header import Header, encode
from eventstore.snapshots.names import is_scratch, scratch_name, snapshot_name, snapshot_seqs
from ledger.errors import Bug

log = logging.getLogger(__name__)

# The older one is for when the newest is damaged.
KEPT = 2
# So many bytes have to be left on the disk: a node stops its intake well before its list's bound,
# and a snapshot is not worth that.
ROOM_BYTES_MIN = 2 * LIST_ROOM_BYTES_MIN


def write(
    folder: Path,
    identity: Identity,
    link: Link,
    machine: Machine,
    files: Files = DISK,
    *,
    block_bytes: int = BLOCK_BYTES,
    room_bytes_min: int = ROOM_BYTES_MIN,
) -> Path:
    """Write the state of a machine after the frame `link`, which is answerable (rule E15), and
    remove older snapshots but one. Makes the folder. When it returns the snapshot is durable.

    Takes some blocks of memory besides the machine. One process writes at a time, by lock. Raises
    FolderInUse, DiskAlmostFull, FileFailed: there is no new snapshot then, and it may be tried
    again; and Bug for a machine that is not at this frame.
    """
    if machine.seq != link.seq:
        raise Bug(f"a snapshot after frame {link.seq} was asked of a machine at {machine.seq}")
    header = Header(identity, link, VERSION, block_bytes, machine.sizes, machine.digest())
    with translated(folder), _locked(folder, files):
        _remove_scratch(folder, files)
        room, wanted = files.room(folder), file_bytes(header)
        if room - wanted < room_bytes_min:
            raise DiskAlmostFull(folder, room, wanted, room_bytes_min)
        path = _put(folder, header, machine, files)
        _remove_old(folder, link.seq, files)
    return path


@contextmanager
def _locked(folder: Path, files: Files) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    lock = files.lock(folder)
    try:
        yield
    finally:
        files.close(lock)


def _remove_scratch(folder: Path, files: Files) -> None:
    for name in filter(is_scratch, files.names(folder)):
        extra = {"event": "snapshot.scratch_removed", "file": name}
        log.info("%s is removed: a crash has left it", name, extra=extra)
        files.remove(folder / name)


def _put(folder: Path, header: Header, machine: Machine, files: Files) -> Path:
    scratch, path = (folder / of(header.link.seq) for of in (scratch_name, snapshot_name))
    try:
        _write(scratch, header, machine, files)
    except OSError:
        # It may have taken what was left of the disk.
        with suppress(OSError):
            files.remove(scratch)
        raise
    files.flush_folder(folder)
    files.rename(scratch, path)
    files.flush_folder(folder)
    # The folder itself may be new.
    files.flush_folder(folder.parent)
    return path


def _write(path: Path, header: Header, machine: Machine, files: Files) -> None:
    file = files.create(path)
    try:
        blocks = BlockWriter(files, file, encode(header), header.block_bytes)
        for piece in machine.dump():
            blocks.add(piece)
        blocks.finish()
    finally:
        files.close(file)


def _remove_old(folder: Path, seq: int, files: Files) -> None:
    """Those that stand before the one with this seq, but the newest of them. What stands behind it
    is of a list that was since set back, or of somebody who was quicker: it is not counted.
    """
    older = [found for found in snapshot_seqs(files.names(folder)) if found < seq]
    for found in older[: 1 - KEPT]:
        files.remove(folder / snapshot_name(found))
