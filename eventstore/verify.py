"""Whether a list is what it says it is: every frame replayed from the first one by a new machine,
and every outcome compared (rule E4).
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from eventstore.machine.machine import VERSION
from eventstore.rows import Code, Commands, Details, Kind, Outcomes
from eventstore.segments.chain import GENESIS, Link, link_of
from eventstore.segments.errors import Differs, NewerMachine
from eventstore.segments.files import DISK, Files
from eventstore.segments.frame import Frame, Identity
from eventstore.segments.reader import Reader
from ledger.errors import Bug

# The first version of the machine that knows BEGIN, CALL and ADVANCE.
_WITH_ATTEMPTS = 2


class Machine(Protocol):
    """What decides commands: a function of what it was given before, and of nothing else."""

    def apply(self, time_us: int, seq: int, commands: Commands, texts: bytes) -> Outcomes:
        """Decide the commands of a frame, in their order. The arrays cannot be written to."""

    def digest(self) -> bytes:
        """A hash of the state."""


class Verified(NamedTuple):
    """A list that holds: how many frames and commands it has, the last frame, and the digest of the
    machine's state after it.
    """

    frames: int
    commands: int
    last: Link
    digest: bytes


def verify(
    folder: Path,
    identity: Identity,
    machine_factory: Callable[[], Machine],
    report: Callable[[int], None],
    *,
    until: int | None = None,
    after: Callable[[Link, Machine], None] = lambda link, machine: None,
    files: Files = DISK,
) -> Verified:
    """Read a list from its first frame, check that it holds, and that a new machine decides all of
    it again as it was decided. Nothing is written. `report` is told the seq of each frame that is
    done. Memory is bounded by the machine's, and the last segment.

    `until` is the seq to end with; None is all that there is, for a list that nobody appends to.
    `after` is given each frame that holds, with the machine as it then is, to look at.
    Raises Differs naming the first command that is decided differently, and what Reader.read does.
    """
    reader = Reader(folder, identity, files=files)
    if until is None:
        until = reader.tail().end.last.seq
    machine, last, commands = machine_factory(), GENESIS, 0
    for frame in reader.read(until=until):
        replay(frame, machine)
        last = link_of(frame.header)
        commands += len(frame.body.commands)
        after(last, machine)
        report(last.seq)
    return Verified(last.seq, commands, last, machine.digest())


def replay(frame: Frame, machine: Machine) -> None:
    """Raise Differs if the machine decides a frame in another way; NewerMachine, or Bug, if by its
    version it cannot have been decided so.
    """
    _check_version(frame)
    seq, (commands, stored, texts) = frame.header.seq, frame.body
    computed = machine.apply(frame.header.time_us, seq, commands, texts)
    if len(computed.codes) != len(commands):
        raise Bug(f"frame {seq} has {len(commands)} commands, {len(computed.codes)} were decided")
    if np.array_equal(stored.codes, computed.codes) and np.array_equal(
        stored.details, computed.details
    ):
        return
    of_stored, of_computed = _by_command(stored.details), _by_command(computed.details)
    for command, codes in enumerate(zip(stored.codes, computed.codes, strict=True)):
        was = _told(int(codes[0]), of_stored.get(command, ()))
        would_be = _told(int(codes[1]), of_computed.get(command, ()))
        if was != would_be:
            raise Differs(seq, command, was, would_be)
    raise Bug(f"frame {seq}: its outcomes differ, and those of no command do: {computed.details}")


def _check_version(frame: Frame) -> None:
    """A frame is decided by the rules of its own version, and what version 1 knows is the same in
    all: that it has nothing else is all that there is to see to.
    """
    seq, version, commands = frame.header.seq, frame.header.machine, frame.body.commands
    if version > VERSION:
        raise NewerMachine(seq, version, VERSION)
    if version < _WITH_ATTEMPTS and np.any(commands["kind"] >= Kind.BEGIN):
        first = commands[commands["kind"] >= Kind.BEGIN][0]
        raise Bug(f"frame {seq} is of version {version} of the machine, which knows no {first}")


def _by_command(details: Details) -> dict[int, tuple[int, ...]]:
    return {command: tuple(rest) for command, *rest in details.tolist()}


def _told(code: int, detail: tuple[int, ...]) -> str:
    """An outcome as a person reads it; a code that is not known is told as a number."""
    name = Code(code).name if code in set(Code) else str(code)
    return f"{name} {detail[1:]}" if detail else name
