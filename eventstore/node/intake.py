"""What waits to be decided: commands and questions in the order in which they came."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventstore.node.durable import At
from eventstore.node.errors import Busy, NodeError, NotServing, NotTaken, OutcomeUnknown
from eventstore.rows import COMMAND, COMMANDS_MAX, DETAIL, Commands, Details, Outcomes
from eventstore.segments.frame import FRAME_BYTES_MAX, frame_bytes

# What a command takes of a frame besides its texts, when it is refused with details.
_COMMAND_BYTES = COMMAND.itemsize + 1 + DETAIL.itemsize
_FRAME_ROOM = FRAME_BYTES_MAX - frame_bytes(0, 0, 0) - 8


class Limits(NamedTuple):
    """How much may wait (rule E16). Beyond that whoever comes is told at once."""

    commands: int = 500_000
    size_bytes: int = 128 * 2**20


class Piece(NamedTuple):
    """The outcomes of consecutive commands of a submission: those from `first` on. They stand in
    frame `seq`, from index `at` on, decided at `time_us`. `details` count from the piece's first.
    """

    first: int
    seq: int
    at: int
    time_us: int
    outcomes: Outcomes


class Answer(NamedTuple):
    """What became of a submission: pieces in the order of its commands, and why those behind the
    last piece, if there are any, were not taken.
    """

    pieces: list[Piece]
    rest: NotTaken | None


class Submission:
    """Commands that came together. They are decided in their order, in one frame or in several."""

    def __init__(self, commands: Commands, texts: bytes) -> None:
        self.commands, self.texts = commands, texts
        self.answered: Future[Answer] = Future()
        self._ends = np.cumsum(commands["text"], dtype=np.int64)
        # What the commands up to each take of frames, in bytes.
        self._costs = self._ends + _COMMAND_BYTES * np.arange(1, len(commands) + 1)
        self._taken = 0
        self._pieces: list[Piece] = []

    @property
    def size_bytes(self) -> int:
        """What all of its commands may take of frames."""
        return _up_to(self._costs, len(self.commands))

    @property
    def waiting(self) -> int:
        """How many commands are in no frame yet."""
        return len(self.commands) - self._taken

    @property
    def is_begun(self) -> bool:
        """Whether some of its commands are in a frame."""
        return self._taken > 0

    def part(self, room_bytes: int, room_commands: int) -> "Part":
        """As many of the waiting commands as there is room for; it may be none."""
        start, before = self._taken, _up_to(self._costs, self._taken)
        fits = int(np.searchsorted(self._costs, before + room_bytes, side="right"))
        self._taken = max(start, min(fits, start + room_commands))
        return Part(self, start, self._taken, _up_to(self._costs, self._taken) - before)

    def texts_of(self, start: int, end: int) -> bytes:
        """The texts of the commands `start` to `end`."""
        return self.texts[_up_to(self._ends, start) : _up_to(self._ends, end)]

    def add(self, piece: Piece) -> None:
        """A piece is durable; the last one answers."""
        self._pieces.append(piece)
        if piece.first + len(piece.outcomes.codes) == len(self.commands):
            self._end(lambda: self.answered.set_result(Answer(self._pieces, None)))

    def refuse_rest(self, why: NotTaken) -> None:
        """What is in no frame will be in none, and all that is in one is durable. Whoever has
        nothing in one gets the error itself.
        """
        if self._pieces:
            self._end(lambda: self.answered.set_result(Answer(self._pieces, why)))
        else:
            self.give_up(why)

    def give_up(self, why: NodeError) -> None:
        """Something of it may have happened, unless `why` says otherwise."""
        self._end(lambda: self.answered.set_exception(why))

    def _end(self, say: Callable[[], None]) -> None:
        """Once: at the node's death both threads may have a part of it."""
        with suppress(InvalidStateError):
            say()


def _up_to(sums: NDArray[np.int64], count: int) -> int:
    """The sum of the first `count` values."""
    return int(sums[count - 1]) if count else 0


def _bytes(rows: Commands) -> memoryview:
    return np.ascontiguousarray(rows).view(np.uint8).data


class Part(NamedTuple):
    """The commands `start` to `end` of a submission, in one frame."""

    submission: Submission
    start: int
    end: int
    size_bytes: int

    def answer(self, seq: int, index: int, time_us: int, outcomes: Outcomes) -> None:
        """The frame is durable, in which the part begins at `index`."""
        end = index + self.end - self.start
        own = Outcomes(outcomes.codes[index:end], _details_of(outcomes.details, index, end))
        self.submission.add(Piece(self.start, seq, index, time_us, own))


def _details_of(details: Details, start: int, end: int) -> Details:
    """Those of the commands `start` to `end`, counted from `start`."""
    first, last = np.searchsorted(details["command"], [start, end])
    own = details[first:last].copy()
    own["command"] -= start
    return own


class Look:
    """A question to the machine, asked when all that came before it is decided."""

    def __init__(self, ask: Callable[[Any], Any]) -> None:
        self._ask = ask
        self._found: Any = None
        self._failed: Exception | None = None
        self.answered: Future[Any] = Future()

    def see(self, machine: object) -> None:
        """Ask, and keep what is found to oneself."""
        try:
            self._found = self._ask(machine)
        except Exception as error:
            self._failed = error

    def answer(self) -> None:
        """What it rests on is durable."""
        with suppress(InvalidStateError):
            if self._failed:
                self.answered.set_exception(self._failed)
            else:
                self.answered.set_result(self._found)

    def give_up(self, why: NodeError) -> None:
        """The node has died."""
        with suppress(InvalidStateError):
            self.answered.set_exception(why)


class Barrier:
    """Wants a frame that is made from now on, and to know which one when that is durable."""

    def __init__(self) -> None:
        self.answered: Future[At] = Future()

    def answer(self, at: At) -> None:
        """The frame is durable."""
        with suppress(InvalidStateError):
            self.answered.set_result(at)

    def give_up(self, why: NodeError) -> None:
        """The node has died."""
        with suppress(InvalidStateError):
            self.answered.set_exception(why)


class Gathered(NamedTuple):
    """What is decided together: a frame's commands, the questions behind them, and who waits for
    the frame itself.
    """

    parts: list[Part]
    looks: list[Look]
    barriers: Sequence[Barrier] = ()

    @property
    def is_empty(self) -> bool:
        return not self.parts and not self.looks and not self.barriers

    @property
    def commands(self) -> Commands:
        """Those of the parts, one after the other."""
        rows = [part.submission.commands[part.start : part.end] for part in self.parts]
        # As bytes: rows of several fields are copied field by field.
        return rows[0] if len(rows) == 1 else np.frombuffer(b"".join(map(_bytes, rows)), COMMAND)

    @property
    def texts(self) -> bytes:
        """Those of the commands."""
        return b"".join(p.submission.texts_of(p.start, p.end) for p in self.parts)

    def answer(self, seq: int, time_us: int, outcomes: Outcomes) -> None:
        """The frame that the parts are in is durable."""
        index = 0
        for part in self.parts:
            part.answer(seq, index, time_us, outcomes)
            index += part.end - part.start
        for barrier in self.barriers:
            barrier.answer(At(seq, time_us))

    def refuse(self, why: NotTaken) -> None:
        """The parts, and what comes behind them, are in no frame; what comes before is durable."""
        for part in self.parts:
            part.submission.refuse_rest(why)

    def give_up(self, why: NodeError) -> None:
        """The node has died."""
        for part in self.parts:
            part.submission.give_up(why)
        for look in self.looks:
            look.give_up(why)
        for barrier in self.barriers:
            barrier.give_up(why)


Item = Submission | Look | Barrier


class Intake:
    """The queue, for any number of threads that put, and one that takes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._queue: deque[Item] = deque()
        self._commands = self._bytes = 0
        # Why it takes nothing more; "": it does.
        self._closed = ""

    def put(self, item: Item) -> None:
        """Raises Busy, NotServing: nothing of it was taken then."""
        with self._changed:
            if self._closed:
                raise NotServing(self._closed)
            if isinstance(item, Submission):
                self._count(item)
            self._queue.append(item)
            self._changed.notify()

    def _count(self, item: Submission) -> None:
        """An empty queue takes anything: what is larger than the limit would never be taken."""
        for limit, value, there, more in (
            ("commands", self._limits.commands, self._commands, len(item.commands)),
            ("bytes", self._limits.size_bytes, self._bytes, item.size_bytes),
        ):
            if there and there + more > value:
                raise Busy(limit, value, there, more)
        self._commands += len(item.commands)
        self._bytes += item.size_bytes

    def take(self, timeout_s: float | None) -> Gathered | None:
        """Whatever waits, as far as it fits into a frame; nothing of either after `timeout_s`. None
        when it is closed and empty.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._queue and not self._closed:
                left_s = None if deadline is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return Gathered([], [])
                self._changed.wait(left_s)
            return self._gather() if self._queue else None

    def _gather(self) -> Gathered:
        parts: list[Part] = []
        looks: list[Look] = []
        barriers: list[Barrier] = []
        room_bytes, room_commands = _FRAME_ROOM, COMMANDS_MAX
        while self._queue:
            item = self._queue[0]
            if isinstance(item, Look):
                looks.append(item)
            elif isinstance(item, Barrier):
                barriers.append(item)
            else:
                part = item.part(room_bytes, room_commands)
                count = part.end - part.start
                if count:
                    parts.append(part)
                self._commands -= count
                self._bytes -= part.size_bytes
                room_bytes -= part.size_bytes
                room_commands -= count
                if item.waiting:
                    break
            self._queue.popleft()
        return Gathered(parts, looks, barriers)

    def forget(self, submission: Submission) -> None:
        """Its rest is not to be decided."""
        with self._changed:
            if self._queue and self._queue[0] is submission:
                rest = submission.part(submission.size_bytes, len(submission.commands))
                self._commands -= rest.end - rest.start
                self._bytes -= rest.size_bytes
                self._queue.popleft()

    def close(self, why: str) -> None:
        """Take nothing more; what waits can still be taken from it."""
        with self._changed:
            self._closed = self._closed or why
            self._changed.notify_all()

    def drop(self, not_taken: NotTaken, unknown: OutcomeUnknown) -> None:
        """Give up whatever waits. Of what is in a frame in part nobody knows what happened."""
        with self._changed:
            left, self._queue = list(self._queue), deque()
        for item in left:
            is_begun = isinstance(item, Submission) and item.is_begun
            item.give_up(unknown if is_begun else not_taken)
