"""The list of a group on disk, as its one writer has it: opened, appended to, flushed.

The order in which things are brought to the disk is what the list rests on:

    a new segment     the one before is flushed; the file is made and flushed; the folder is
                      flushed; only then is a frame written into it. So all that is in a segment
                      behind which there is another one was flushed, and what is broken there is
                      damage.
    the end, anew     what is believed of the last segment is written into another file, that is
                      flushed, and the folder; it takes the name of the segment; the folder is
                      flushed; only then is it believed. So what was only in memory is on the disk,
                      and behind the end there are no old bytes that could look like frames. What
                      is cut was kept aside in the same way before.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from eventstore.segments.chain import Link, Sealed, seal
from eventstore.segments.errors import (
    Damaged,
    DiskAlmostFull,
    ListDead,
    ListExists,
    NotThere,
    translated,
)
from eventstore.segments.files import DISK, Files
from eventstore.segments.frame import Draft, Frame, Identity
from eventstore.segments.names import (
    cut_name,
    is_scratch,
    scratch_name,
    segment_firsts,
    segment_name,
)
from eventstore.segments.reader import Reader, Tail

log = logging.getLogger(__name__)

# A segment is sealed before it would have more bytes than this: so many are read and written anew
# when the list is opened.
SEGMENT_BYTES = 64 * 2**20
# So many bytes have to be left on the disk after an append: enough to open the list again, which
# writes the last segment anew and keeps aside what it cuts, and for what else has to be written
# before somebody makes room.
ROOM_BYTES_MIN = 4 * SEGMENT_BYTES


class _OpenSegment(NamedTuple):
    """The segment that is appended to: an open file, its path, and its size in bytes."""

    file: int
    path: Path
    size: int


def begin(folder: Path, *, files: Files = DISK) -> None:
    """Make the first, empty segment in a folder that is there. May be repeated after a crash.

    Raises ListExists if the folder has segments that are not empty, FolderInUse, FileFailed.
    """
    with translated(folder):
        lock = files.lock(folder)
        try:
            firsts = segment_firsts(files.names(folder))
            path = folder / segment_name(1)
            if firsts and (firsts != [1] or files.read(path, 0, 1)):
                raise ListExists(folder, len(firsts))
            file = files.open(path) if firsts else files.create(path)
            files.flush(file)
            files.close(file)
            files.flush_folder(folder)
            # The folder itself may be new.
            files.flush_folder(folder.parent)
        finally:
            files.close(lock)


class List:
    """The list of one group, open for appending, for one thread.

    `append` writes frames, `flush` makes them durable: a frame counts from then on. When a write or
    flush has failed nothing is known of what was not flushed, and every later call raises ListDead:
    the process has to end, and whoever opens the list learns what is there.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        files: Files,
        lock: int,
        segment: _OpenSegment,
        last: Link,
        segment_bytes: int,
        room_bytes_min: int,
    ) -> None:
        self._folder, self._identity, self._files = folder, identity, files
        self._lock, self._segment = lock, segment
        self._segment_bytes, self._room_bytes_min = segment_bytes, room_bytes_min
        self._last, self._flushed = last, last.seq
        self._reader = Reader(folder, identity, files=files)
        self._dead = ""

    @classmethod
    def open(
        cls,
        folder: Path,
        identity: Identity,
        *,
        files: Files = DISK,
        segment_bytes: int = SEGMENT_BYTES,
        room_bytes_min: int = ROOM_BYTES_MIN,
    ) -> "List":
        """Lock the folder, find the end of the list, and make sure of it: rule E5.

        What is returned begins with everything that was ever flushed, and all of it is flushed. It
        may end with frames that were written and not flushed, which are believed from now on. A
        frame that is not whole, and that nothing vouches for, is cut with all behind it: its bytes
        are kept in a file `*.cut`, and a warning is logged.

        Raises FolderInUse, NoList, Damaged, OtherList, NewerFormat: then nothing was changed; and
        FileFailed: then it may be tried again, and the next one to open the list cleans up.
        """
        with translated(folder):
            lock = files.lock(folder)
            try:
                tail = Reader(folder, identity, files=files).tail()
                _write_anew(files, folder, tail)
                path = folder / segment_name(tail.first)
                segment = _OpenSegment(files.open(path), path, tail.end.size)
            except BaseException:
                files.close(lock)
                raise
        last = tail.end.last
        return cls(folder, identity, files, lock, segment, last, segment_bytes, room_bytes_min)

    def __enter__(self) -> "List":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def last(self) -> Link:
        """The last frame that was appended: what the next one follows on."""
        return self._last

    @property
    def flushed(self) -> int:
        """The seq up to which all frames are durable."""
        return self._flushed

    def append(self, drafts: Sequence[Draft]) -> list[Sealed]:
        """Write frames behind the last one; none of them is durable before `flush` returns.

        What is raised before anything is written changes nothing: Bug if a draft does not follow
        on the frame before, DiskAlmostFull. FileFailed, or anything else, is the list's end.
        """
        self._check_alive()
        frames = self._seal(drafts)
        self._check_room(sum(len(frame.data) for frame in frames))
        with self._or_dead():
            for frame in frames:
                self._write(frame)
        return frames

    def flush(self) -> int:
        """Make everything durable that was appended; the seq up to which it is."""
        self._check_alive()
        if self._flushed < self._last.seq:
            with self._or_dead():
                self._flush_segment()
        return self._flushed

    def room(self) -> int:
        """How many bytes are left on the disk. Appending stops before it is ROOM_BYTES_MIN, or what
        was given to `open`; whoever takes commands stops well before that.
        """
        self._check_alive()
        with translated(self._folder):
            return self._files.room(self._folder)

    def read(self, start: int = 1, *, until: int | None = None) -> Iterator[Frame]:
        """The frames from `start` to `until`, or to the last that is flushed; see Reader.read."""
        self._check_alive()
        until = self._flushed if until is None else until
        self._check_there(until)
        return self._reader.read(start, until=until)

    def find(self, seq: int) -> Frame:
        """One frame that was appended, flushed or not; see Reader.find."""
        self._check_alive()
        self._check_there(seq)
        return self._reader.find(seq)

    def close(self) -> None:
        """Let go of the folder. What was not flushed may be lost. May be repeated."""
        if self._lock >= 0:
            self._dead = self._dead or "it was closed"
            self._files.close(self._segment.file)
            self._files.close(self._lock)
            self._lock = -1

    def _seal(self, drafts: Sequence[Draft]) -> list[Sealed]:
        frames: list[Sealed] = []
        before = self._last
        for draft in drafts:
            frames.append(seal(draft, self._identity, before, self._flushed))
            before = frames[-1].link
        return frames

    def _check_room(self, wanted: int) -> None:
        room = self.room()
        if room - wanted < self._room_bytes_min:
            raise DiskAlmostFull(self._folder, room, wanted, self._room_bytes_min)

    def _write(self, frame: Sealed) -> None:
        size = self._segment.size
        if size and size + len(frame.data) > self._segment_bytes:
            self._roll(frame.link.seq)
        file, path, size = self._segment
        self._files.write(file, size, frame.data)
        self._segment = _OpenSegment(file, path, size + len(frame.data))
        self._last = frame.link

    def _roll(self, first: int) -> None:
        """Seal the open segment and begin a new one, whose first frame will have this seq."""
        self._flush_segment()
        path = self._folder / segment_name(first)
        file = self._files.create(path)
        old, self._segment = self._segment, _OpenSegment(file, path, 0)
        self._files.close(old.file)
        self._files.flush(file)
        self._files.flush_folder(self._folder)

    def _flush_segment(self) -> None:
        self._files.flush(self._segment.file)
        self._flushed = self._last.seq

    def _check_there(self, seq: int) -> None:
        if seq > self._last.seq:
            raise NotThere(self._folder, seq, self._last.seq)

    def _check_alive(self) -> None:
        if self._dead:
            raise ListDead(self._folder, self._dead)

    @contextmanager
    def _or_dead(self) -> Iterator[None]:
        """What fails in here, for whatever reason, is the end."""
        try:
            with translated(self._segment.path):
                yield
        except BaseException as error:
            self._dead = str(error) or repr(error)
            raise


def _write_anew(files: Files, folder: Path, tail: Tail) -> None:
    """Bring what is believed of the last segment to the disk, in the place of what is there."""
    for name in files.names(folder):
        if is_scratch(name):
            extra = {"event": "list.scratch_removed", "file": name}
            log.info("%s is removed: a crash has left it", name, extra=extra)
            files.remove(folder / name)
    size = tail.end.size
    if tail.end.broken:
        _keep_aside(files, folder, tail, tail.end.broken)
    _put(files, folder, segment_name(tail.first), tail.data[:size])


def _keep_aside(files: Files, folder: Path, tail: Tail, broken: Damaged) -> None:
    cut, seq = tail.data[tail.end.size :], tail.end.last.seq
    name = cut_name(tail.first, tail.end.size, cut)
    _put(files, folder, name, cut)
    extra = {"event": "list.end_cut", "seq": seq, "count": len(cut), "file": name}
    text = "the list ends with frame %d: nothing says that the %d bytes behind it were flushed (%s)"
    text += "; they are kept in %s"
    log.warning(text, seq, len(cut), broken.finding, name, extra=extra)


def _put(files: Files, folder: Path, name: str, data: bytes) -> None:
    """Write a file that is there whole or not at all, in the place of what has its name."""
    scratch = folder / scratch_name(name)
    file = files.create(scratch)
    try:
        files.write(file, 0, data)
        files.flush(file)
    finally:
        files.close(file)
    files.flush_folder(folder)
    files.rename(scratch, folder / name)
    files.flush_folder(folder)
