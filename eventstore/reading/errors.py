"""What can go wrong with what the read side keeps.

    ReadingError
    |-- KeptDamaged      what is kept does not hold: nothing is answered from it
    |-- CatchingUp       it has not seen yet what it had seen before it was started again
    |-- NotYet           a moment was asked for that is later than the last frame it has seen
    |-- NotEntered       a frame has what cannot be entered yet: steps of TC/C and Saga
    |-- BooksClosed      books were asked that are not open
    |-- HoldsList        what is kept was to be dropped, in a folder that is a node's
    `-- Ended            something failed before: it answers nothing more

Errors of the list itself, and of the system, are those of `eventstore.segments.errors`.
"""

from pathlib import Path
from typing import NamedTuple


class ReadingError(Exception):
    """The read side cannot answer."""


class KeptDamaged(ReadingError):
    """What is kept does not hold. `offset` is in bytes; `what` does not hold there."""

    def __init__(self, file: str, offset: int, what: str, found: object, expected: object) -> None:
        super().__init__(
            f"{file}, at byte {offset}: {what} is {found}, and should be {expected}. Nothing is"
            " lost: start the read side with --rebuild; it is made anew from the list"
        )
        self.file, self.offset, self.what = file, offset, what
        self.found, self.expected = found, expected


class NotEntered(ReadingError):
    """A frame has a step of TC/C or Saga, and what these do is not entered yet."""

    def __init__(self, seq: int, index: int) -> None:
        super().__init__(
            f"command {index} of frame {seq} is a step of TC/C or Saga, which this version of the"
            " read side does not enter: what it says would be wrong from there on. The list is not"
            " touched by this, and the node goes on; only reads are away"
        )
        self.seq, self.index = seq, index


class CatchingUp(ReadingError):
    """It was started again, and was further than it is."""

    def __init__(self, seen: int, floor: int) -> None:
        super().__init__(
            f"the read side has come to frame {seen} again, and was at {floor} before it was"
            " started; ask again in a moment"
        )
        self.seen, self.floor = seen, floor


class NotYet(ReadingError):
    """What is to come may still change the answer."""

    def __init__(self, time_us: int, seen: int, seen_us: int) -> None:
        super().__init__(
            f"the balance at {time_us} is not known yet: the last frame that was seen, {seen}, is"
            f" of {seen_us}; ask again with the seq of a later frame"
        )


class BooksClosed(ReadingError):
    """They are kept until they are closed."""

    def __init__(self) -> None:
        super().__init__("these books were closed; open new ones, and begin with their first page")


class HoldsList(ReadingError):
    """A node's folder is not to be mistaken for what can be made anew."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} holds a list: it is a node's folder, and not that of a read side; nothing"
            " was removed"
        )


class Ended(ReadingError):
    """It follows the list no more; the process is to end."""

    def __init__(self, folder: Path, why: str) -> None:
        self.why = why
        super().__init__(f"the read side in {folder} has ended ({why}): start it again")


class Where(NamedTuple):
    """Where bytes stand: a file's name, and an offset in it, in bytes."""

    file: str
    offset: int

    def demand(self, what: str, found: object, expected: object) -> None:
        """Raise KeptDamaged unless both are the same."""
        if found != expected:
            raise KeptDamaged(self.file, self.offset, what, found, expected)
