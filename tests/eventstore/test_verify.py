"""`verify` replays a list and finds the first outcome that its machine does not make again."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from eventstore.rows import COMMAND, DETAIL, Code, Codes, Commands, Outcomes
from eventstore.segments.errors import Damaged, Differs, OtherList
from eventstore.segments.frame import Body
from eventstore.segments.names import segment_name
from eventstore.segments.writer import List
from eventstore.verify import Verified, verify
from ledger.errors import Bug
from tests.eventstore.drafts import IDENTITY, begun, draft, opened
from tests.eventstore.forgetful import Forgetful

FOLDER = Path("/group")


class Adder:
    """A machine whose state is a sum: what would make that more than `limit` has no funds."""

    limit = 1000

    def __init__(self) -> None:
        self.sum = 0
        self.seen = sha256()

    def apply(self, time_us: int, seq: int, commands: Commands, texts: bytes) -> Outcomes:
        self.seen.update(f"{time_us} {seq} {len(commands)} {texts!r}".encode())
        codes = np.zeros(len(commands), np.uint8)
        details = []
        for index, amount in enumerate(commands["amount"].tolist()):
            if self.sum + amount > self.limit:
                codes[index] = Code.FUNDS
                details.append((index, 0, self.sum, 0, self.limit, 0))
            else:
                self.sum += amount
        return Outcomes(codes, np.array(details, DETAIL))

    def digest(self) -> bytes:
        return self.seen.digest() + self.sum.to_bytes(8, "little")


class Generous(Adder):
    limit = 1001


class Forgetting(Adder):
    def apply(self, time_us: int, seq: int, commands: Commands, texts: bytes) -> Outcomes:
        codes, details = super().apply(time_us, seq, commands, texts)
        return Outcomes(codes, details[:-1])


class Short(Adder):
    def apply(self, time_us: int, seq: int, commands: Commands, texts: bytes) -> Outcomes:
        return super().apply(time_us, seq, commands[1:], texts)


def append(list_: List, machine: Adder, amounts: list[int], wrong: Codes | None = None) -> None:
    commands = np.zeros(len(amounts), COMMAND)
    commands["amount"], commands["text"] = amounts, 2
    made, texts = draft(list_.last), b"\0\0" * len(amounts)
    outcomes = machine.apply(made.time_us, made.seq, commands, texts)
    if wrong is not None:
        outcomes = outcomes._replace(codes=wrong)
    list_.append([made._replace(body=Body(commands, outcomes, texts))])
    list_.flush()


@pytest.fixture
def files() -> Forgetful:
    """Four frames, in several segments."""
    files, machine = Forgetful(), Adder()
    with begun(FOLDER, files, segment_bytes=500) as list_:
        for amounts in ([600, 400, 1], [], [2, -5, 5, 6], [0]):
            append(list_, machine, amounts)
    assert len(files.paths(".segment")) > 1
    return files


def test_a_list_that_holds(files: Forgetful) -> None:
    reported: list[int] = []
    verified = verify(FOLDER, IDENTITY, Adder, reported.append, files=files)
    machine, last = Adder(), None
    with opened(FOLDER, files) as list_:
        for frame in list_.read():
            machine.apply(
                frame.header.time_us, frame.header.seq, frame.body.commands, frame.body.texts
            )
        last = list_.last
    assert verified == Verified(4, 8, last, machine.digest())
    assert reported == [1, 2, 3, 4]


def test_nothing_is_written_or_locked(files: Forgetful) -> None:
    with opened(FOLDER, files):
        steps = files.steps
        assert verify(FOLDER, IDENTITY, Adder, id, files=files).frames == 4
        assert files.steps == steps


def test_up_to_a_bound_and_an_empty_list(files: Forgetful) -> None:
    verified = verify(FOLDER, IDENTITY, Adder, id, until=2, files=files)
    assert (verified.frames, verified.commands) == (2, 3)
    empty = Forgetful()
    begun(FOLDER, empty).close()
    assert verify(FOLDER, IDENTITY, Adder, id, files=empty)[:2] == (0, 0)


def test_a_torn_end_is_no_difference(files: Forgetful) -> None:
    files.contents(files.paths(".segment")[-1]).extend(b"half")
    assert verify(FOLDER, IDENTITY, Adder, id, files=files).frames == 4


def test_the_first_difference_is_named(files: Forgetful) -> None:
    reported: list[int] = []
    with pytest.raises(Differs) as found:
        verify(FOLDER, IDENTITY, Generous, reported.append, files=files)
    assert str(found.value).startswith(
        "frame 1, command 2: the list says FUNDS (1000, 0, 1000, 0), and the machine makes DONE"
    )
    assert (found.value.seq, found.value.command) == (1, 2)
    assert reported == []


def test_numbers_of_a_refusal_that_are_missing_are_a_difference(files: Forgetful) -> None:
    with pytest.raises(Differs, match=r"command 2: the list says FUNDS \(1.*makes FUNDS of it"):
        verify(FOLDER, IDENTITY, Forgetting, id, files=files)


def test_an_outcome_that_was_changed_is_found_although_all_hashes_are_right() -> None:
    files, machine = Forgetful(), Adder()
    with begun(FOLDER, files) as list_:
        append(list_, machine, [1, 2])
        append(list_, machine, [3, 4], np.array([0, 200], np.uint8))
        append(list_, machine, [5])
    with pytest.raises(Differs, match=r"frame 2, command 1: the list says 200, and .* makes DONE"):
        verify(FOLDER, IDENTITY, Adder, id, files=files)


def test_a_machine_that_decides_fewer_commands_is_our_own_mistake(files: Forgetful) -> None:
    with pytest.raises(Bug, match="frame 1 has 3 commands, 2 were decided"):
        verify(FOLDER, IDENTITY, Short, id, files=files)


def test_damage_and_other_lists_are_named(files: Forgetful) -> None:
    with pytest.raises(OtherList):
        verify(FOLDER, IDENTITY._replace(branch=3), Adder, id, files=files)
    files.tamper(FOLDER / segment_name(1), 190, 77)
    with pytest.raises(Damaged, match=f"{segment_name(1)}, frame at byte 0: hash is"):
        verify(FOLDER, IDENTITY, Adder, id, files=files)
