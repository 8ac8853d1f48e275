"""Events of a list on disk, while its node appends to it."""

import threading
from pathlib import Path

from eventstore.events import answer_events
from eventstore.machine.refusals import Terms
from eventstore.node.node import Node
from eventstore.segments.reader import Reader
from eventstore.wire.questions import (
    WHOLE_FRAME,
    AccountOpened,
    At,
    Event,
    EventsAre,
    EventsPage,
    Position,
    TransferDecided,
)
from tests.eventstore.groups import (
    GROUP,
    PATIENCE_S,
    SETTINGS,
    accounts,
    new_folder,
    opened,
    transfers,
    wish,
)


class Follower:
    """Asks for what a node's list has, as a read side does."""

    def __init__(self, node: Node, folder: Path) -> None:
        self._node, self._reader = node, Reader(folder, GROUP)
        self._changed = threading.Condition()
        # Told of each question that has begun to wait.
        self.waits = threading.Event()
        node.follow(lambda at: self._tell(), 0)

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait_for(self, seq: int, wait_s: float) -> bool:
        self.waits.set()
        with self._changed:
            return self._changed.wait_for(lambda: self._node.durable.seq >= seq, wait_s)

    def number_of(self, account: str) -> int | None:
        raise AssertionError(account)

    def terms(self, number: int) -> Terms:
        return self._node.terms(number)

    def ask(self, after: Position, limit: int = 100, wait_s: float = 0.0) -> EventsAre:
        return answer_events(
            EventsPage(after, limit, wait_s),
            self._reader,
            self,
            lambda: At(*self._node.durable),
            self._wait_for,
        )

    def all_behind(self, after: Position, limit: int) -> list[Event]:
        found: list[Event] = []
        while events := self.ask(after, limit).events:
            found += events
            after = events[-1].position
        return found


def test_what_is_durable_is_told_page_by_page(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "list")
    node = opened(folder, SETTINGS._replace(segment_bytes=4096))
    node.submit(*accounts("bank", "a", "b")).result(PATIENCE_S)
    keys = [f"{number}" for number in range(100)]
    for start in range(0, 100, 20):
        paid = [wish(key, "bank", "a", 1) for key in keys[start : start + 20]]
        node.submit(*transfers(*paid)).result(PATIENCE_S)
    node.submit(*transfers(wish("much", "a", "b", 1000))).result(PATIENCE_S)
    follower = Follower(node, folder)
    whole = follower.all_behind(Position(0), 1000)
    assert [e.account for e in whole if isinstance(e, AccountOpened)] == ["bank", "a", "b"]
    decided = [e for e in whole if isinstance(e, TransferDecided)]
    assert [e.transfer.key for e in decided] == [*keys, "much"]
    assert [e.reason for e in decided] == [None] * 100 + ["insufficient-funds"]
    assert follower.all_behind(Position(0), 7) == whole
    for event in whole[::10]:
        behind = whole[whole.index(event) + 1 :]
        assert follower.all_behind(event.position, 30) == behind
    node.stop()
    # The list is the same for another node, and another reader.
    node = opened(folder)
    assert Follower(node, folder).all_behind(Position(0), 40) == whole
    node.stop()


def test_an_answer_comes_with_what_becomes_durable(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "list")
    node = opened(folder)
    node.submit(*accounts("bank", "a")).result(PATIENCE_S)
    follower = Follower(node, folder)
    end = follower.ask(Position(0)).end
    assert end.index == WHOLE_FRAME
    found: list[EventsAre] = []
    asking = threading.Thread(target=lambda: found.append(follower.ask(end, wait_s=PATIENCE_S)))
    asking.start()
    assert follower.waits.wait(PATIENCE_S)
    # It makes a frame, and there is no event in it.
    node.barrier().result(PATIENCE_S)
    assert not found
    node.submit(*transfers(wish("k", "bank", "a", 1))).result(PATIENCE_S)
    asking.join(PATIENCE_S)
    (event,) = found[0].events or []
    assert isinstance(event, TransferDecided)
    assert event.transfer.key == "k"
    assert event.position.seq > end.seq + 1
    node.stop()
