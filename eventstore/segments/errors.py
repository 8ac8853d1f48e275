"""What can go wrong with a list on disk.

    ListError
    |-- Damaged          what is stored does not hold: nothing was changed, skipped or cut
    |   `-- OtherList    it is whole, and of another cluster, group or branch
    |-- NewerFormat      a newer version of Tandem wrote it; nothing was changed
    |-- NewerMachine     the same: a newer version of the machine has decided it
    |-- NoList           there is no segment in the folder
    |-- ListExists       a list was to begin in a folder that has one
    |-- NotThere         a frame was asked for that is behind the end of the list
    |-- FolderInUse      another process appends to the list
    |-- DiskAlmostFull   nothing was written; when there is room the same may be asked again
    |-- FileFailed       the system refused an operation: what was not flushed may be there or not
    |-- ListDead         a write or flush failed before: open the list again to learn what is there
    `-- Differs          the machine does not decide as the list says it did

Every OSError is translated here and nowhere else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class ListError(Exception):
    """A list on disk is not as it should be, or could not be read or written."""


class Damaged(ListError):
    """What is stored does not hold. `offset` is in bytes, of the frame's first one; `what` does not
    hold there, by `found` and `expected`, which `finding` says in words; `because` is why that is
    no mere torn end.
    """

    def __init__(
        self, file: str, offset: int, what: str, found: object, expected: object, because: str = ""
    ) -> None:
        self.finding = f"{what} is {found}, and should be {expected}"
        super().__init__(
            f"{file}, frame at byte {offset}: {self.finding}"
            + (f"; {because}" if because else "")
            + ". Nothing was changed. Copy the folder as it is, then put an undamaged copy of this"
            " file in its place"
        )
        self.file, self.offset, self.what = file, offset, what
        self.found, self.expected = found, expected


class OtherList(Damaged):
    """A frame is whole, and of another cluster, group or branch."""


class NewerFormat(ListError):
    """A frame is of a format that this version does not know."""

    def __init__(self, file: str, offset: int, found: int, known: int) -> None:
        super().__init__(
            f"{file}, frame at byte {offset}: its format is {found}, and this version knows formats"
            f" up to {known}. Nothing was changed. Run the version of Tandem that wrote it"
        )
        self.file, self.offset, self.found = file, offset, found


class NewerMachine(ListError):
    """A frame was decided by rules that this version does not know."""

    def __init__(self, seq: int, found: int, known: int) -> None:
        super().__init__(
            f"frame {seq} was decided by version {found} of the machine, and this version of Tandem"
            f" knows those up to {known}. Nothing was changed. Run the version that wrote it"
        )
        self.seq, self.found = seq, found


class NoList(ListError):
    """There is no segment in the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} holds no segment of a list. If it should, its files are gone or its disk is"
            " not mounted; a new list begins only where it is told to"
        )


class ListExists(ListError):
    """A list was to begin in a folder that has one."""

    def __init__(self, folder: Path, segments: int) -> None:
        super().__init__(
            f"{folder} holds a list of {segments} segments, so none can begin there; open it, or"
            " give another folder"
        )


class NotThere(ListError):
    """A frame was asked for that is behind the end of the list."""

    def __init__(self, folder: Path, seq: int, last: int) -> None:
        super().__init__(
            f"frame {seq} was asked for, and the list in {folder} ends with frame {last}; ask for"
            " no more than is answerable"
        )
        self.seq, self.last = seq, last


class FolderInUse(ListError):
    """Another process appends to the list; `pid` is which, None if it has not said so yet."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        super().__init__(
            f"{folder} is in use by process {'?' if pid is None else pid}; a list has one writer,"
            " so end that one first, or give another folder"
        )
        self.pid = pid


class DiskAlmostFull(ListError):
    """Too little would be left on the disk, all in bytes; nothing was written."""

    def __init__(self, folder: Path, room: int, wanted: int, room_min: int) -> None:
        super().__init__(
            f"{folder} has room for {room} bytes: {wanted} are to be written, and {room_min} have"
            " to be left. Nothing was written. Make room on the disk"
        )
        self.room, self.wanted, self.room_min = room, wanted, room_min


class FileFailed(ListError):
    """The system refused an operation."""

    def __init__(self, file: str, error: OSError) -> None:
        super().__init__(
            f"{file}: {error.strerror or error}. What was flushed before is not touched by this;"
            " see to the disk, the folder and its permissions, then start again"
        )
        self.file, self.errno = file, error.errno


class ListDead(ListError):
    """A write or flush failed before, so nothing that is asked of this list proves anything."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"the list in {folder} takes no more calls, for one has failed: {why}. End the process,"
            " and open the list again"
        )


class Differs(ListError):
    """The machine does not decide a command as the list says that it did."""

    def __init__(self, seq: int, command: int, stored: object, computed: object) -> None:
        super().__init__(
            f"frame {seq}, command {command}: the list says {stored}, and the machine makes"
            f" {computed} of it. Run the version of the machine that the frame names; if it differs"
            " too, the outcome was changed or the machine does not repeat itself"
        )
        self.seq, self.command, self.stored, self.computed = seq, command, stored, computed


class Where(NamedTuple):
    """Where bytes stand: a file's name, and an offset in it, in bytes."""

    file: str
    offset: int

    def demand(self, what: str, found: object, expected: object) -> None:
        """Raise Damaged unless both are the same."""
        if found != expected:
            raise Damaged(self.file, self.offset, what, found, expected)


@contextmanager
def translated(file: Path) -> Iterator[None]:
    """Raise FileFailed for an OSError; `file` is named if the error itself names none."""
    try:
        yield
    except OSError as error:
        raise FileFailed(str(error.filename or file), error) from error
