"""What a list says to those who only look at it, whether a node appends to it or not.

Nothing here locks or writes anything.
"""

from pathlib import Path

from eventstore.machine.machine import Limits, Machine
from eventstore.recent import Recent
from eventstore.segments.errors import NoList, NotThere, Where
from eventstore.segments.files import DISK
from eventstore.segments.frame import FRAME_BYTES_MAX, Frame, Identity, decode
from eventstore.segments.names import segment_name
from eventstore.segments.reader import Reader
from eventstore.verify import replay

# How a machine that only replays lays out its tables: nobody can choose ids against it.
_KEY = bytes(16)
# Linux's list of all locks on files.
_LOCKS = Path("/proc/locks")
# More than any node's: whoever replays a list takes it as it is.
_LIMITS = Limits(accounts=2**28, transfers=2**40, currencies=2**24)


class ListView:
    """A list as it was when this was made: up to the last frame that was durable then."""

    def __init__(self, folder: Path) -> None:
        """Raises ListError: there is no list, or no frame, or its beginning or end is damaged."""
        self.identity = _identity_of(folder)
        self._folder = folder
        self.reader = Reader(folder, self.identity)
        is_held = _is_held(folder)
        last = self.reader.tail().end.last.seq
        # What a node has just written may not be flushed; what it says of earlier frames is true.
        self.until = self.reader.find(last).header.flushed if is_held else last

    def new_machine(self) -> Machine:
        """A machine to replay the list with, from its first frame."""
        return Machine(_KEY, Recent(Reader(self._folder, self.identity)).command, _LIMITS)

    def replayed(self, *, at_us: int | None = None) -> tuple[Machine, Frame | None]:
        """The machine after all frames, or after those up to a time, and the last of them. Every
        outcome is compared. Raises ListError, Differs.
        """
        machine, last = self.new_machine(), None
        for frame in self.reader.read(until=self.until):
            if at_us is not None and frame.header.time_us > at_us:
                break
            replay(frame, machine)
            last = frame
        return machine, last


def _identity_of(folder: Path) -> Identity:
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
