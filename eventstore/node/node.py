"""A node: one thread decides frames, another writes, flushes and answers them.

    submit -> Intake -> [decide: Machine] -> frames ahead -> [append, flush: List] -> answers

The machine runs ahead of the disk. What it did is seen by nobody before its frame is durable: no
answer, no refusal, no look at its state (rules E2 and E3). When anything fails, all of it ends
(rule E6): first start and restart are one path, which believes the list alone.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

from eventstore.machine.errors import LimitReached
from eventstore.machine.machine import VERSION as MACHINE_VERSION
from eventstore.machine.machine import Limits as MachineLimits
from eventstore.machine.machine import Machine
from eventstore.machine.refusals import Terms
from eventstore.node.check import check
from eventstore.node.durable import At, Counts, Durable, Tell
from eventstore.node.errors import NoRoom, NotServing, OutcomeUnknown
from eventstore.node.intake import Answer, Barrier, Gathered, Intake, Limits, Look, Submission
from eventstore.node.unknown import named
from eventstore.recent import Recent
from eventstore.rows import Commands
from eventstore.segments.errors import ListDead
from eventstore.segments.files import DISK, Files
from eventstore.segments.frame import FRAME_BYTES_MAX, Body, Draft, Identity
from eventstore.segments.reader import Reader
from eventstore.segments.writer import ROOM_BYTES_MIN, SEGMENT_BYTES, List
from eventstore.snapshots.names import FOLDER
from eventstore.snapshots.reader import in_list, newest
from eventstore.verify import replay

log = logging.getLogger(__name__)
T = TypeVar("T")

# So many frames may be decided and not yet durable.
AHEAD_MAX = 16
# After such a pause an empty frame vouches for the last one (rule E5).
PAUSE_S = 0.02


class Settings(NamedTuple):
    """What may be set of a node, besides where its list is."""

    node: int = 1
    intake: Limits = Limits()
    machine: MachineLimits = MachineLimits()
    room_bytes_min: int = ROOM_BYTES_MIN
    segment_bytes: int = SEGMENT_BYTES


_DEFAULTS = Settings()


class _Decided(NamedTuple):
    """What goes from one thread to the other. Without a draft nothing of it is for the list, and
    `refused` says why; the questions wait for the frames before it.
    """

    draft: Draft | None
    gathered: Gathered
    refused: NoRoom | None = None


class Node:
    """See `open`. Threads may share it."""

    def __init__(
        self,
        list_: List,
        machine: Machine,
        recent: Recent,
        settings: Settings,
        clock_us: Callable[[], int],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._list, self._machine, self._recent = list_, machine, recent
        self._settings, self._clock_us, self._on_death = settings, clock_us, on_death
        self._epoch = list_.last.epoch + 1
        self._draw = secrets.randbits(64)
        self._time_us = list_.last.time_us
        self._intake = Intake(settings.intake)
        self._durable = Durable()
        self._counts = Counts()
        self._ahead: SimpleQueue[_Decided | None] = SimpleQueue()
        self._room_ahead = threading.Semaphore(AHEAD_MAX)
        self._dead: BaseException | None = None
        self._decider = threading.Thread(target=self._decide_all, name="decider", daemon=True)
        self._writer = threading.Thread(target=self._write_all, name="writer", daemon=True)

    @classmethod
    def open(
        cls,
        folder: Path,
        identity: Identity,
        settings: Settings = _DEFAULTS,
        *,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        on_death: Callable[[BaseException], None] = lambda error: None,
        snapshots: Path | None = None,
        files: Files = DISK,
    ) -> "Node":
        """Replay the list in `folder`, begin a new epoch in it, and serve.

        The list is replayed from the newest snapshot that is whole and belongs to it, or else from
        its first frame; `snapshots` is their folder, if it is not FOLDER in that of the list.
        Replaying compares every outcome with the one in the list (rule E4). `on_death` is called,
        by one of the node's threads, when it has failed and everybody was told: the process is to
        end then. Raises what `List.open` does, Differs, and LimitReached for a snapshot that is
        larger than the machine may be.
        """
        list_ = List.open(
            folder,
            identity,
            files=files,
            segment_bytes=settings.segment_bytes,
            room_bytes_min=settings.room_bytes_min,
        )
        try:
            reader = Reader(folder, identity, files=files)
            recent = Recent(reader)

            def new_machine() -> Machine:
                # Drawn anew: it says how tables are laid out, and nothing that is decided.
                return Machine(secrets.token_bytes(16), recent.command, settings.machine)

            kept = folder / FOLDER if snapshots is None else snapshots
            found = newest(kept, identity, in_list(reader), new_machine, files=files)
            machine = found.machine if found else new_machine()
            for frame in list_.read(machine.seq + 1):
                replay(frame, machine)
            node = cls(list_, machine, recent, settings, clock_us, on_death)
            # Whoever was there before has ended, and what this one makes is known from it.
            list_.append([node._draft(Gathered([], []))])
            list_.flush()
        except BaseException:
            list_.close()
            raise
        node._decider.start()
        node._writer.start()
        return node

    # --- what is asked of it --------------------------------------------------------------------

    @property
    def answerable(self) -> int:
        """The highest seq that may be seen outside."""
        return self._list.flushed

    def submit(self, commands: Commands, texts: bytes) -> "Future[Answer]":
        """Have commands decided, in their order. The future has the answer when it is durable, or
        raises NodeError. Raises NotTaken at once, and Bug for commands that are none. A transfer
        may have a number that no account has: that one is refused.
        """
        accounts = len(self._machine)
        commands, texts = named(commands, texts, accounts)
        check(commands, texts, accounts)
        submission = Submission(commands, texts)
        if len(commands):
            self._check_room()
            self._intake.put(submission)
        else:
            submission.answered.set_result(Answer([], None))
        return submission.answered

    def look(self, ask: Callable[[Machine], T]) -> "Future[T]":
        """Ask the machine something, after all that was submitted before. The future has the answer
        when everything that it rests on is durable. `ask` is to be quick: frames wait for it.
        Raises NotServing.
        """
        look = Look(ask)
        self._intake.put(look)
        return look.answered

    def barrier(self) -> "Future[At]":
        """A frame that is made from now on, an empty one if nothing else waits, when it is durable:
        all that was answered before is in frames up to it. Raises NotTaken at once.
        """
        self._check_room()
        barrier = Barrier()
        self._intake.put(barrier)
        return barrier.answered

    @property
    def durable(self) -> At:
        """The frame of `answerable`."""
        return self._durable.at

    def follow(self, tell: Tell, after: int = 0) -> Callable[[], None]:
        """Have somebody told whenever `durable` is another frame, see `Durable.follow`."""
        return self._durable.follow(tell, after)

    @property
    def decided(self) -> At:
        """The frame that was decided last. For those alone who look: it may not be durable."""
        return At(self._machine.seq, self._time_us)

    def terms(self, number: int) -> Terms:
        """Those of an account that stands in a durable frame: any thread may ask, since they never
        change.
        """
        return self._machine.terms(number)

    @property
    def epoch(self) -> int:
        """The number of this start."""
        return self._epoch

    @property
    def counts(self) -> Counts:
        """What was written since the start."""
        return self._counts

    def clock_us(self) -> int:
        """The clock by which frames are stamped."""
        return self._clock_us()

    def room(self) -> tuple[int, int]:
        """How many bytes are left on the disk, and below how many nothing is taken. Raises
        ListDead.
        """
        least = self._settings.room_bytes_min + self._settings.intake.size_bytes
        return self._list.room(), least + (AHEAD_MAX + 2) * FRAME_BYTES_MAX

    def stop(self) -> None:
        """Answer all that was taken, take no more, and let go of the list. May be repeated."""
        self._intake.close("the node is ending")
        self._decider.join()
        self._writer.join()
        self._durable.close()
        self._list.close()

    def _check_room(self) -> None:
        """Well before the list would refuse to write: what waits, and what is ahead, it has to."""
        # A dead node says so itself.
        with suppress(ListDead):
            room, least = self.room()
            if room < least:
                raise NoRoom(
                    f"its disk has room for {room:,} bytes, and {least:,} have to be left; make "
                    "room on it"
                )

    # --- the decider ----------------------------------------------------------------------------

    def _decide_all(self) -> None:
        is_vouched_for = True
        gathered: Gathered | None = None
        try:
            while (gathered := self._intake.take(None if is_vouched_for else PAUSE_S)) is not None:
                if gathered.is_empty and self.answerable < self._machine.seq:
                    continue
                self._hand_on(self._decide(gathered))
                makes_frame = gathered.parts or gathered.barriers
                is_vouched_for = gathered.is_empty or (is_vouched_for and not makes_frame)
            if not is_vouched_for and self._is_all_written():
                self._hand_on(self._decide(Gathered([], [])))
        except BaseException as error:
            self._die(error)
            if gathered:
                gathered.give_up(self._unknown())
        finally:
            self._ahead.put(None)

    def _hand_on(self, all_decided: Iterable[_Decided]) -> None:
        for decided in all_decided:
            self._room_ahead.acquire()
            self._ahead.put(decided)

    def _is_all_written(self) -> bool:
        """Wait until nothing is ahead of the list; False if it never will be."""
        for _ in range(AHEAD_MAX):
            self._room_ahead.acquire()
        self._room_ahead.release(AHEAD_MAX)
        return not self._dead

    def _decide(self, gathered: Gathered) -> Iterator[_Decided]:
        draft = None
        if gathered.parts or gathered.barriers or gathered.is_empty:
            try:
                draft = self._draft(gathered)
            except LimitReached as error:
                for part in gathered.parts:
                    self._intake.forget(part.submission)
                yield _Decided(None, Gathered(gathered.parts, []), NoRoom(str(error)))
                gathered = gathered._replace(parts=[])
                draft = self._draft(gathered) if gathered.barriers else None
        for look in gathered.looks:
            look.see(self._machine)
        yield _Decided(draft, gathered)

    def _draft(self, gathered: Gathered) -> Draft:
        """Decide the next frame. Raises LimitReached: nothing has happened then."""
        seq, commands, texts = self._machine.seq + 1, gathered.commands, gathered.texts
        time_us = max(self._clock_us(), self._time_us + 1)
        outcomes = self._machine.apply(time_us, seq, commands, texts)
        self._time_us = time_us
        body = Body(commands, outcomes, texts)
        self._recent.add(seq, body, self.answerable)
        node, draw = self._settings.node, self._draw
        return Draft(seq, time_us, self._epoch, node, draw, MACHINE_VERSION, body)

    # --- the writer -----------------------------------------------------------------------------

    def _write_all(self) -> None:
        self._durable.rise(At(self._list.last.seq, self._list.last.time_us))
        for all_ahead in self._each_ahead():
            try:
                if not self._dead:
                    self._write(all_ahead)
            except BaseException as error:
                self._die(error)
            if self._dead:
                for decided in all_ahead:
                    decided.gathered.give_up(self._unknown())
            self._room_ahead.release(len(all_ahead))
        if self._dead:
            self._on_death(self._dead)

    def _each_ahead(self) -> Iterator[list[_Decided]]:
        """Whatever is ahead: one flush is for all of it."""
        while (first := self._ahead.get()) is not None:
            found: list[_Decided] = [first]
            is_last = False
            while not self._ahead.empty() and not is_last:
                item = self._ahead.get()
                is_last = item is None
                found += [item] if item else []
            yield found
            if is_last:
                return

    def _write(self, all_ahead: list[_Decided]) -> None:
        drafts = [decided.draft for decided in all_ahead if decided.draft]
        if drafts:
            self._list.append(drafts)
            self._flush(drafts)
        for draft, gathered, refused in all_ahead:
            if draft:
                gathered.answer(draft.seq, draft.time_us, draft.body.outcomes)
            elif refused:
                gathered.refuse(refused)
            for look in gathered.looks:
                look.answer()

    def _flush(self, drafts: list[Draft]) -> None:
        start = time.perf_counter()
        self._list.flush()
        spent_s, (frames, commands, flushes, flush_s) = time.perf_counter() - start, self._counts
        commands += sum(len(draft.body.commands) for draft in drafts)
        self._counts = Counts(frames + len(drafts), commands, flushes + 1, flush_s + spent_s)
        self._durable.rise(At(drafts[-1].seq, drafts[-1].time_us))

    # --- the end --------------------------------------------------------------------------------

    def _die(self, error: BaseException) -> None:
        """What fails ends everything: nothing that is ahead of the list is believed any more."""
        self._dead = self._dead or error
        log.critical("the node ends: %s", error, exc_info=error, extra={"event": "node.died"})
        why = f"the node has failed ({error})"
        self._intake.close(why)
        self._intake.drop(NotServing(why), self._unknown())

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(f"the node has failed ({self._dead})")
