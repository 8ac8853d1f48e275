"""Events of a list: which commands have one, what it says, and page after page of them."""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import events
from eventstore.events import answer_events, check_of, is_in_list, read_page
from eventstore.rows import Code, Outcomes, place
from eventstore.segments.frame import Body, Frame, Header, Identity
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
from ledger.model import Status
from tests.unit.eventstore.machine_books import (
    Change,
    Command,
    Ledger,
    Node,
    Opening,
    Wish,
    pack,
)

START = Position(0)
_IDENTITY = Identity(UUID(int=1), UUID(int=2), 0)


class Written:
    """A list in memory, with the machine that has decided it, and how often frames were found."""

    def __init__(self, *frames: Sequence[Command], salt: str = "") -> None:
        self.node, self.frames, self.found = Node(), [], 0
        self._salt = salt
        for commands in frames:
            self.add(commands)

    def add(self, commands: Sequence[Command]) -> None:
        rows, texts = pack(self.node.machine, commands)
        seq = len(self.frames) + 1
        outcomes: Outcomes = self.node.machine.apply(time_of(seq), seq, rows, texts)
        self.node.frames.append((rows, texts))
        digest = sha256(f"{self._salt}{seq}".encode()).digest()
        header = Header(_IDENTITY, 1, seq, time_of(seq), 0, 0, 0, 1, bytes(32), digest)
        self.frames.append(Frame(header, Body(rows, outcomes, texts), len(texts)))

    def find(self, seq: int) -> Frame:
        self.found += 1
        return self.frames[seq - 1]

    @property
    def at(self) -> At:
        return At(len(self.frames), time_of(len(self.frames)))

    def page(self, after: Position, limit: int = 1000, until: int | None = None) -> events.Page:
        last = len(self.frames) if until is None else until
        return read_page(self, self.node.machine, after, last, limit)

    def pages(self, after: Position, limits: Iterable[int]) -> list[Event]:
        """All events behind a position, page by page."""
        told: list[Event] = []
        for limit in limits:
            found = self.page(after, limit)
            if found.end == after:
                return told
            assert len(found.events) <= limit
            assert is_in_list(self, found.end, len(self.frames))
            told += found.events
            after = found.end
        raise AssertionError("there was no end")

    def ask(
        self,
        after: Position,
        wait_s: float = 0.0,
        wait_for: Callable[[int, float], bool] | None = None,
        now: Callable[[], float] = lambda: 0.0,
    ) -> EventsAre:
        return answer_events(
            EventsPage(after, 100, wait_s),
            self,
            self.node.machine,
            lambda: self.at,
            wait_for or (lambda seq, wait_s: False),
            now,
        )


def time_of(seq: int) -> int:
    return 1_000_000 + seq


# --- what there is an event of ------------------------------------------------------------------


def test_what_events_say() -> None:
    paid = Wish("a", "b", 5, "key", metadata='{"n":1}', protocol="tcc")
    written = Written(
        [Opening("a", None), Opening("b", 7, "USD"), Opening("c")],
        [Change("c", Status.FROZEN), paid],
        [paid._replace(destination="c"), Wish("a", "c", 6, "other", by_name=True)],
        [],
        [Wish("c", "a", 7, "third", protocol="")],
    )

    def at(seq: int, index: int) -> tuple[Position, int]:
        return Position(seq, index, check_of(written.frames[seq - 1])), time_of(seq)

    told = written.page(START).events
    assert told[:4] == [
        AccountOpened(*at(1, 0), "a", "EUR", None),
        AccountOpened(*at(1, 1), "b", "USD", 7),
        AccountOpened(*at(1, 2), "c", "EUR", 0),
        StatusSet(*at(2, 0), "c", "frozen"),
    ]
    refused, committed, frozen = told[4:]
    assert isinstance(refused, TransferDecided)
    assert (refused.position, refused.time_us) == at(2, 1)
    assert refused.transfer == paid.transfer()._replace(created_at=time_of(2))
    assert refused.reason == "currency-mismatch"
    assert refused.detail
    assert "b" in refused.detail
    assert "USD" in refused.detail
    # The same key for another account is refused, and changes nothing.
    other = Wish("a", "c", 6, "other").transfer()._replace(created_at=time_of(3))
    assert committed == TransferDecided(*at(3, 1), other, None, None)
    assert isinstance(frozen, TransferDecided)
    assert (frozen.position, frozen.reason) == (at(5, 0)[0], "account-frozen")
    assert frozen.transfer.protocol == ""


_NAMES = st.sampled_from(["a", "b", "c", "nobody"])
_COMMANDS = st.one_of(
    st.builds(Opening, st.sampled_from("abc"), st.sampled_from([None, 0, 5]), st.just("EUR")),
    st.builds(Change, _NAMES, st.sampled_from(Status), st.booleans()),
    st.builds(
        Wish,
        _NAMES,
        _NAMES,
        st.integers(1, 9),
        st.sampled_from(["k1", "k2", "k3", "k4"]),
        currency=st.sampled_from(["EUR", "EUR", "USD"]),
        protocol=st.sampled_from(["", "xa", "saga"]),
        metadata=st.sampled_from([None, '{"x":"é"}']),
        by_name=st.booleans(),
    ),
)
_FRAMES = st.lists(st.lists(_COMMANDS, max_size=6), max_size=8)


def expected(frames: list[list[Command]]) -> list[tuple[int, int, object, object]]:
    """Place, time, and what the ledger says of each command that has changed or burnt something."""
    ledger, told = Ledger(), []
    for seq, commands in enumerate(frames, 1):
        for index, command in enumerate(commands):
            answer = ledger.apply(command, place(seq, index), time_of(seq))
            is_kept = answer.refusal and answer.refusal.is_recorded and isinstance(command, Wish)
            if answer.code == Code.DONE or (is_kept and answer.code != Code.REUSED):
                why = answer.refusal
                said = (why.reason.value, why.detail) if why else None
                told.append((place(seq, index), time_of(seq), command, said))
    return told


def described(event: Event) -> tuple[int, int, object, object]:
    """The same of an event, as far as it says what was asked for."""
    where, said = place(event.position.seq, event.position.index), None
    if isinstance(event, TransferDecided) and event.reason:
        said = event.reason, event.detail
    return where, event.time_us, event, said


def is_of(event: Event, command: Command) -> bool:
    match command:
        case Opening(account, limit, currency):
            found = AccountOpened(event.position, event.time_us, account, currency, limit)
        case Change(account, status, _):
            found = StatusSet(event.position, event.time_us, account, status.value)
        case Wish():
            assert isinstance(event, TransferDecided)
            wish = command.transfer()._replace(created_at=event.time_us)
            found = TransferDecided(event.position, event.time_us, wish, event.reason, event.detail)
    return bool(event == found)


@given(_FRAMES)
def test_events_are_what_the_ledger_says(frames: list[list[Command]]) -> None:
    told, wanted = Written(*frames).page(START).events, expected(frames)
    found = [described(event) for event in told]
    assert [(a, b, d) for a, b, _, d in found] == [(a, b, d) for a, b, _, d in wanted]
    assert all(is_of(event, each[2]) for event, each in zip(told, wanted, strict=True))


# --- pages --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(_FRAMES, st.lists(st.integers(1, 4), min_size=1), st.data())
def test_pages_make_up_the_same_from_any_place(
    frames: list[list[Command]], limits: list[int], data: st.DataObject
) -> None:
    written = Written(*frames)
    whole = written.page(START).events
    endless = (limits[n % len(limits)] for n in range(1000))
    assert written.pages(START, endless) == whole
    seq = data.draw(st.integers(0, len(frames)))
    length = len(frames[seq - 1]) if seq else 1
    index = data.draw(st.sampled_from([*range(length), WHOLE_FRAME]))
    behind = [e for e in whole if (e.position.seq, e.position.index) > (seq, index)]
    check = check_of(written.frames[seq - 1]) if seq else ""
    for after in (Position(seq, index), Position(seq, index, check)):
        if seq == 0 and index == 0:
            behind = whole
        assert is_in_list(written, after, len(frames))
        assert written.pages(after, (limits[n % len(limits)] for n in range(1000))) == behind


@given(_FRAMES, st.data())
def test_nothing_is_told_of_what_is_not_answerable(
    frames: list[list[Command]], data: st.DataObject
) -> None:
    written = Written(*frames)
    until = data.draw(st.integers(0, len(frames)))
    whole = written.page(START).events
    found = written.page(START, until=until)
    assert found.events == [event for event in whole if event.position.seq <= until]
    assert found.end.seq <= until


def test_a_page_has_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PAGE_BYTES", 10_000)
    metadata = '{"text":"' + "x" * 4000 + '"}'
    paid = [Wish("a", "b", 1, f"{n}", metadata=metadata) for n in range(9)]
    written = Written([Opening("a", None), Opening("b")], paid)
    sizes, after = [], START
    while (found := written.page(after)).events:
        sizes.append(len(found.events))
        after = found.end
    assert sizes == [5, 3, 3]


def test_one_event_is_told_however_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PAGE_BYTES", 1)
    written = Written([Opening("a", None), Opening("b")])
    assert len(written.page(START).events) == 1


def test_a_limit_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS_MAX", 2)
    written = Written([Opening("a"), Opening("b"), Opening("c")])
    assert [len(written.page(START, limit).events) for limit in (-1, 0, 1, 10**9)] == [1, 1, 1, 2]


def test_frames_without_events_are_looked_through_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "FRAMES_MAX", 10)
    written = Written([Opening("a")], *([] for _ in range(25)), [Opening("b")])
    ends, after, told = [], START, []
    while (found := written.page(after)).end != after:
        ends.append(found.end.seq)
        told += found.events
        after = found.end
    assert ends == [10, 20, 27]
    assert [event.position.seq for event in told] == [1, 27]
    monkeypatch.setattr(events, "LOOKED_BYTES", 1)
    assert written.page(START).end.seq == 1


# --- places that are not in the list ------------------------------------------------------------


def test_places_of_another_list_are_found_out() -> None:
    frames = [[Opening("a"), Opening("b")], []]
    mine, other = Written(*frames), Written(*frames, salt="other")
    check = check_of(mine.frames[0])
    for good in (
        *(START, Position(0, 0), Position(1), Position(1, 0), Position(1, 1), Position(2)),
        *(Position(1, 1, check), Position(1, WHOLE_FRAME, check)),
    ):
        assert is_in_list(mine, good, 2), good
        assert mine.ask(good).events is not None
    for bad in (
        *(Position(0, 1), Position(0, 0, check), Position(1, 2), Position(2, 0), Position(3)),
        *(Position(-1), Position(1, -1), Position(1, 0, check_of(other.frames[0]))),
        *(Position(1, WHOLE_FRAME, "0"), Position(2, WHOLE_FRAME, check)),
    ):
        assert not is_in_list(mine, bad, 2), bad
        assert mine.ask(bad) == EventsAre(mine.at, None, bad)


# --- waiting ------------------------------------------------------------------------------------


def test_an_answer_comes_with_the_first_event() -> None:
    written, waited = Written([Opening("a")]), []
    told = written.ask(START).end

    def wait_for(seq: int, wait_s: float) -> bool:
        waited.append((seq, wait_s))
        written.add([] if seq < 4 else [Opening("b")])
        return True

    clock = count()
    found = written.ask(told, 9.0, wait_for, lambda: float(next(clock)))
    assert [event.position for event in found.events or []] == [
        Position(4, 0, check_of(written.frames[3]))
    ]
    assert found.as_of == written.at
    assert [seq for seq, _ in waited] == [2, 3, 4]
    assert [wait_s for _, wait_s in waited] == [8.0, 7.0, 6.0]


def test_an_answer_comes_when_the_time_is_over() -> None:
    written = Written([Opening("a")])
    told = written.ask(START).end
    # None in time.
    assert written.ask(told, 5.0) == EventsAre(written.at, [], Position(1, *told_of(told)))

    def wait_for(seq: int, wait_s: float) -> bool:
        written.add([])
        return True

    # Frames without events go on coming.
    clock = count()
    found = written.ask(told, 3.0, wait_for, lambda: float(next(clock)))
    assert (found.events, found.end.seq) == ([], 4 - 1)
    assert found.as_of == written.at


def told_of(position: Position) -> tuple[int, str]:
    return WHOLE_FRAME, position.check


@pytest.mark.parametrize(("asked", "waits"), [(-1.0, 0.0), (1e9, 20.0), (float("nan"), 0.0)])
def test_nobody_waits_for_ever(asked: float, waits: float) -> None:
    waited = []

    def wait_for(seq: int, wait_s: float) -> bool:
        waited.append(wait_s)
        return False

    Written([Opening("a")]).ask(Position(5), asked, wait_for)
    assert waited == [waits]


def test_what_others_have_seen_already_is_waited_for() -> None:
    written = Written([Opening("a")])

    def wait_for(seq: int, wait_s: float) -> bool:
        assert (seq, wait_s) == (2, 1.0)
        written.add([Opening("b")])
        written.add([Opening("c")])
        return True

    found = written.ask(Position(2), 1.0, wait_for)
    assert [event.position.seq for event in found.events or []] == [3]


def test_a_whole_frame_is_not_read_to_see_that_it_is_there() -> None:
    written = Written([Opening("a")])
    assert is_in_list(written, Position(1), 1)
    assert written.found == 0
