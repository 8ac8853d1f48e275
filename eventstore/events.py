"""What has become durable in a list, as events: in the list's order, none left out, none twice.

An event is a command that has changed something, or a transfer that was refused for good. Whoever
reads them asks for page after page, and says by a position how far he is: nothing is kept for him
here, and a page has few bytes, however slowly he reads.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from eventstore.machine.refusals import Directory, refusal
from eventstore.machine.texts import Body, account_id, transfer_of
from eventstore.rows import UNLIMITED, Code, Details, Kind, StatusCode
from eventstore.segments.frame import Frame
from eventstore.wire.questions import (
    WHOLE_FRAME,
    AccountOpened,
    At,
    Event,
    EventsAre,
    EventsPage,
    Position,
    StatusSet,
    TransferDecided,
)
from ledger.errors import Bug
from ledger.model import Status

# Of a frame's hash, in hexadecimal: enough to tell two lists that have parted.
CHECK_DIGITS = 8
# More is not given at once, whatever is asked for: events, and bytes of them, about.
EVENTS_MAX = 1000
PAGE_BYTES = 2**18
# So much is looked through for a page: frames, and bytes of them. Many frames have no event.
FRAMES_MAX = 2000
LOOKED_BYTES = 2**23
WAIT_S_MAX = 20.0
# Of an event as it goes over the wire, besides what its texts have.
_EVENT_BYTES = 350


class Frames(Protocol):
    """Where frames are read, such as `segments.reader.Reader`."""

    def find(self, seq: int) -> Frame:
        """The frame with this number."""


class Page(NamedTuple):
    """Events, and the position up to which there are no others."""

    events: list[Event]
    end: Position


def answer_events(
    question: EventsPage,
    reader: Frames,
    directory: Directory,
    answerable: Callable[[], At],
    wait_for: Callable[[int, float], bool],
    now: Callable[[], float] = time.monotonic,
) -> EventsAre:
    """The answer to a question, by one thread, which may wait in here.

    `answerable` says up to where events may be told; `directory` has to know all accounts up to
    there. `wait_for` waits until that is at a frame, for so many seconds at most, and gives whether
    it is. Raises what `reader.find` does.
    """
    wait_s = min(max(0.0, question.wait_s), WAIT_S_MAX)
    deadline = now() + wait_s
    after, as_of = question.after, answerable()
    # It may be behind what others have seen of the list.
    if after.seq > as_of.seq and wait_for(after.seq, wait_s):
        as_of = answerable()
    if not is_in_list(reader, after, as_of.seq):
        return EventsAre(as_of, None, after)
    while True:
        found = read_page(reader, directory, after, as_of.seq, question.limit)
        if found.events or found.end.seq < as_of.seq:
            break
        if (left_s := deadline - now()) <= 0 or not wait_for(as_of.seq + 1, left_s):
            break
        after, as_of = found.end, answerable()
    return EventsAre(as_of, *found)


def is_in_list(reader: Frames, position: Position, last: int) -> bool:
    """Whether a position is one in the list that `reader` reads, which goes up to frame `last`."""
    seq, index, check = position.seq, position.index, position.check
    if seq == 0:
        return index in (0, WHOLE_FRAME) and not check
    if not 0 < seq <= last:
        return False
    if index == WHOLE_FRAME and not check:
        return True
    frame = reader.find(seq)
    has_index = 0 <= index < len(frame.body.commands) or index == WHOLE_FRAME
    return has_index and check in ("", check_of(frame))


def read_page(
    reader: Frames, directory: Directory, after: Position, until: int, limit: int
) -> Page:
    """The first events behind a position that is in the list, in frames up to `until`; one at
    least, if there is one in the frames that are looked through.
    """
    limit, events, size = min(max(limit, 1), EVENTS_MAX), [], 0
    end, looked = after, 0
    is_whole = after.index == WHOLE_FRAME or not after.seq
    first, start = (after.seq + 1, 0) if is_whole else (after.seq, after.index + 1)
    for seq in range(first, min(until + 1, first + FRAMES_MAX)):
        frame = reader.find(seq)
        for event, event_bytes in events_in(frame, start, directory):
            events.append(event)
            size += event_bytes
            if len(events) >= limit or size >= PAGE_BYTES:
                return Page(events, event.position)
        end, start = Position(seq, WHOLE_FRAME, check_of(frame)), 0
        looked += frame.length
        if looked >= LOOKED_BYTES:
            break
    return Page(events, end)


def events_in(frame: Frame, start: int, directory: Directory) -> Iterator[tuple[Event, int]]:
    """The events among the commands of a frame, from index `start` on, and how many bytes each
    takes, about.
    """
    commands, (codes, details), texts = frame.body
    # Of the refusals those of a transfer are recorded, but for the one that burns no key.
    is_refused = (codes >= Code.SAME_ACCOUNT) & (codes <= Code.DESTINATION_OVERFLOW)
    indexes = np.flatnonzero((codes == Code.DONE) | is_refused)
    ends = np.cumsum(commands["text"], dtype=np.int64)
    check = check_of(frame)
    for index in indexes[np.searchsorted(indexes, start) :].tolist():
        row, end = commands[index], int(ends[index])
        body = Body(row, texts[end - int(row["text"]) : end])
        at = Position(frame.header.seq, index, check), frame.header.time_us
        event = _event(at, body, Code(int(codes[index])), _detail(details, index), directory)
        yield event, _EVENT_BYTES + len(body.texts)


def check_of(frame: Frame) -> str:
    """What `Position.check` is of the positions in a frame."""
    return frame.header.hash.hex()[:CHECK_DIGITS]


def _event(
    at: tuple[Position, int],
    body: Body,
    code: Code,
    detail: np.void | None,
    directory: Directory,
) -> Event:
    """What a command has brought about that was done, or was a transfer that was refused."""
    kind, amount = int(body.row["kind"]), int(body.row["amount"])
    match kind:
        case Kind.OPEN:
            letters = body.row["currency"].tobytes().rstrip(b"\0").decode("ascii")
            limit = None if amount == UNLIMITED else amount
            return AccountOpened(*at, account_id(body), letters, limit)
        case Kind.STATUS:
            return StatusSet(*at, account_id(body), Status[StatusCode(amount).name].value)
        case Kind.TRANSFER:
            transfer = transfer_of(body, lambda number: directory.terms(number).id, at[1])
            if code == Code.DONE:
                return TransferDecided(*at, transfer, None, None)
            why = refusal(code, body, detail, directory)
            return TransferDecided(*at, transfer, why.reason.value, why.detail)
    raise Bug(f"the command {body.row} at {at} is of a kind of which no event is known")


def _detail(details: Details, index: int) -> np.void | None:
    """The details of a command, if it has any."""
    at = int(np.searchsorted(details["command"], index))
    has_any = at < len(details) and int(details["command"][at]) == index
    return details[at] if has_any else None
