"""The few operations on files that durability rests on. Tests put their own in the place of DISK.

What each promises when it has returned, and not before:

    write          others see the bytes; after a power cut each sector of them is there, or not
    flush          all that was written to the file is there after a power cut, and its length
    flush_folder   so are the names in the folder, as they were made, changed and removed
    rename         others see the new name, at once and whole; after a power cut it is one or other

After a write or flush that failed nobody knows what is on the disk, and a flush that then succeeds
does not say: the kernel may have dropped what it could not write. What is read may come from memory
and not from the disk.

Each of them raises OSError.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from eventstore.segments.errors import FolderInUse
from eventstore.segments.names import HOLDER


class Files(Protocol):
    """What a list asks of a file system. An open file is a number."""

    def names(self, folder: Path) -> list[str]:
        """What is in a folder, in no order."""

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """So many bytes, or fewer if the file ends before. Opened anew each time: a file that was
        replaced under its name is read as it is now.
        """

    def create(self, path: Path) -> int:
        """Open a new, empty file for writing; FileExistsError if there is one."""

    def open(self, path: Path) -> int:
        """Open a file for writing."""

    def write(self, file: int, offset: int, data: bytes) -> None:
        """Write all of the bytes. If it fails, some of them may have been written."""

    def flush(self, file: int) -> None:
        """Bring to the disk what was written, and as much else as is needed to read it again."""

    def close(self, file: int) -> None:
        """Close a file, or let go of a lock. It brings nothing to the disk."""

    def flush_folder(self, folder: Path) -> None:
        """Bring the names in a folder to the disk."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in the place of one that has it."""

    def remove(self, path: Path) -> None:
        """Remove a name."""

    def room(self, folder: Path) -> int:
        """How many bytes this process may still write to the folder's disk."""

    def lock(self, folder: Path) -> int:
        """Take the folder for this process, until `close` or the process's end. Raises
        FolderInUse. A child that was forked holds it too: have none that outlives its parent.
        """


class Disk:
    """The files that there really are."""

    def names(self, folder: Path) -> list[str]:
        return os.listdir(folder)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        with path.open("rb", buffering=0) as file:
            parts = []
            while length and (part := os.pread(file.fileno(), length, offset)):
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)

    def open(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY)

    def write(self, file: int, offset: int, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(file, left, offset)
            left, offset = left[written:], offset + written

    def flush(self, file: int) -> None:
        # It brings the length too: without that the bytes could not be read again.
        os.fdatasync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def flush_folder(self, folder: Path) -> None:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def room(self, folder: Path) -> int:
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize

    def lock(self, folder: Path) -> int:
        # The folder itself is locked and not a file in it, which somebody might remove.
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / HOLDER).write_text(f"{os.getpid()}\n")
        except BaseException as error:
            os.close(file)
            if isinstance(error, BlockingIOError):
                raise FolderInUse(folder, _holder(folder)) from None
            raise
        return file


def _holder(folder: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int((folder / HOLDER).read_text())
    return None


DISK = Disk()
