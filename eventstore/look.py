"""What a list says to those who only look at it, whether a node appends to it or not.

Nothing here locks or writes anything, but for `make_snapshot`, in a folder of its own.
"""

from pathlib import Path

from eventstore.machine.machine import Limits, Machine
from eventstore.recent import Recent
from eventstore.segments.chain import link_of
from eventstore.segments.errors import NoList, NotThere, Where
from eventstore.segments.files import DISK
from eventstore.segments.frame import FRAME_BYTES_MAX, Frame, Identity, decode
from eventstore.segments.names import segment_name
from eventstore.segments.reader import Reader
from eventstore.snapshots.names import FOLDER
from eventstore.snapshots.reader import Loaded, in_list, newest
from eventstore.snapshots.writer import write
from eventstore.verify import replay

# How a machine that only replays lays out its tables: nobody can choose ids against it.
_KEY = bytes(16)
# Linux's list of all locks on files.
_LOCKS = Path("/proc/locks")
# More than any node's: whoever replays a list takes it as it is.
_LIMITS = Limits(accounts=2**28, transfers=2**40, currencies=2**24, attempts=2**28)


class ListView:
    """A list as it was when this was made: up to the last frame that was durable then."""

    def __init__(self, folder: Path) -> None:
        """Raises ListError: there is no list, or no frame, or its beginning or end is damaged."""
        self.identity = identity_of(folder)
        self._folder, self.snapshots = folder, folder / FOLDER
        self.reader = Reader(folder, self.identity)
        # Whether a node appends to it, or may.
        self.is_held = _is_held(folder)
        last = self.reader.tail().end.last.seq
        # What a node has just written may not be flushed; what it says of earlier frames is true.
        self.until = self.reader.find(last).header.flushed if self.is_held else last

    def new_machine(self) -> Machine:
        """A machine to replay the list with, from its first frame."""
        return Machine(_KEY, Recent(Reader(self._folder, self.identity)).command, _LIMITS)

    def replayed(self, *, at_us: int | None = None) -> tuple[Machine, Frame | None]:
        """The machine after all frames, or after those up to a time, and the last of them. It
        begins with the newest snapshot that there is of that time; what comes behind that is
        replayed, and every outcome compared. Raises ListError, Differs.
        """
        return self._replayed(self._newest(at_us), at_us)

    def make_snapshot(self) -> Path:
        """Have a snapshot after the last frame; the file. Raises as `replayed` and `write` do."""
        found = self._newest(None)
        if found and found.link.seq == self.until:
            return found.path
        machine, last = self._replayed(found, None)
        if last is None:
            raise NotThere(self._folder, 1, 0)
        return write(self.snapshots, self.identity, link_of(last.header), machine)

    def _newest(self, at_us: int | None) -> Loaded | None:
        whose = self.snapshots, self.identity, in_list(self.reader), self.new_machine
        if at_us is None:
            return newest(*whose, seq_max=self.until)
        return newest(*whose, seq_max=self.until, time_max_us=at_us)

    def _replayed(self, found: Loaded | None, at_us: int | None) -> tuple[Machine, Frame | None]:
        machine = found.machine if found else self.new_machine()
        last = self.reader.find(found.link.seq) if found else None
        for frame in self.reader.read(machine.seq + 1, until=self.until):
            if at_us is not None and frame.header.time_us > at_us:
                break
            replay(frame, machine)
            last = frame
        return machine, last


def identity_of(folder: Path) -> Identity:
    """Whose list it is, by its first frame."""
    path = folder / segment_name(1)
    try:
        data = DISK.read(path, 0, FRAME_BYTES_MAX)
    except FileNotFoundError:
        raise NoList(folder) from None
    if not data:
        raise NotThere(folder, 1, 0)
    return decode(data, Where(str(path), 0)).header.identity


def _is_held(folder: Path) -> bool:
    """Whether a node appends to it at this moment, or that cannot be seen. To try its lock would
    keep away a node that starts just then.
    """
    inode = folder.stat().st_ino
    try:
        locks = _LOCKS.read_text().splitlines()
    except OSError:
        return True
    # Of each: a number, its kind, how strict it is, its mode, whose, and DEVICE:DEVICE:INODE.
    return any(f":{inode} " in line and " FLOCK " in line for line in locks)
