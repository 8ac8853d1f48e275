"""What a node answers.

Nothing here holds up the node's threads: files are read by one thread of its own.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from eventstore.machine.machine import Machine, Sizes
from eventstore.node import durable
from eventstore.node.intake import Answer as NodeAnswer
from eventstore.node.node import Node
from eventstore.rows import Code, Commands
from eventstore.segments.frame import Identity
from eventstore.segments.names import segment_firsts, segment_name
from eventstore.segments.reader import Reader
from eventstore.server.firsts import Firsts
from eventstore.server.futures import then
from eventstore.server.handling import Asker, Decided, Handlers, NoRequest
from eventstore.wire.answers import Answer, Piece
from eventstore.wire.questions import (
    FIND_MAX,
    NAMES_MAX,
    At,
    Barrier,
    Describe,
    Description,
    Find,
    Finding,
    Follow,
    Known,
    Names,
    NamesAre,
    NodeQuestion,
    NowAnswerable,
)
from ledger.errors import Bug
from ledger.ids import slot_of_transfer

_KNOWN_BEFORE = (Code.REPLAYED, Code.REUSED)


class _Places(NamedTuple):
    """Where transfers stand that are in frames up to one."""

    as_of: durable.At
    places: dict[str, int]


class NodeService:
    """The handlers of a node's server."""

    def __init__(self, node: Node, folder: Path, identity: Identity) -> None:
        self._node, self._folder = node, folder
        self._firsts = Firsts(Reader(folder, identity), node.terms)
        self._files = ThreadPoolExecutor(1, "files")
        self._version = version("tandem")
        # The sizes of segments that are sealed, by their first seqs.
        self._sealed: dict[int, int] = {}

    @property
    def handlers(self) -> Handlers:
        """What a server needs."""
        return Handlers(NodeQuestion, self.question, self.commands)

    def close(self) -> None:
        """Finish what was begun."""
        self._files.shutdown()

    # --- commands -------------------------------------------------------------------------------

    def commands(self, commands: Commands, texts: bytes) -> "Future[Decided]":
        """Have them decided. Raises NodeError, NoRequest."""
        try:
            answered = self._node.submit(commands, texts)
        except Bug as error:
            raise NoRequest(f"nothing of it was taken: {error}") from error
        decided: Future[Decided] = Future()

        def tell(done: "Future[NodeAnswer]") -> None:
            try:
                answer = done.result()
                if _has_known(answer):
                    # Done by the other thread: this one is the node's.
                    self._files.submit(self._tell_firsts, answer, decided)
                else:
                    decided.set_result(Decided(_told(answer)))
            except Exception as error:
                decided.set_exception(error)

        answered.add_done_callback(tell)
        return decided

    def _tell_firsts(self, answer: NodeAnswer, decided: "Future[Decided]") -> None:
        try:
            found = Decided(_told(answer), list(self._firsts_of(answer)))
        except Exception as error:
            decided.set_exception(error)
        else:
            decided.set_result(found)

    def _firsts_of(self, answer: NodeAnswer) -> Iterator[tuple[int, Known]]:
        for piece in answer.pieces:
            codes, details = piece.outcomes.codes.tolist(), piece.outcomes.details
            indexes, places = details["command"].tolist(), details["a"].tolist()
            for index, place in zip(indexes, places, strict=True):
                code = codes[index]
                if code in _KNOWN_BEFORE:
                    is_other = code == Code.REUSED
                    yield piece.first + index, self._firsts.known(place, is_other=is_other)

    # --- questions ------------------------------------------------------------------------------

    def question(
        self, question: NodeQuestion, asker: Asker
    ) -> "msgspec.Struct | Future[Description] | Future[Finding] | Future[NamesAre] | Future[At]":
        """Answer one of `NodeQuestion`. Raises NodeError, NoRequest."""
        match question:
            case Barrier():
                return then(self._node.barrier(), _at, None)
            case NowAnswerable():
                return _at(self._node.durable)
            case Find(transfers):
                return self._find(transfers)
            case Names(first):
                return self._names(first)
            case Describe():
                sizes = self._node.look(lambda machine: machine.sizes)
                return then(sizes, self._describe, self._files)
            case Follow():
                return self._follow(asker)

    def _follow(self, asker: Asker) -> At:
        now = self._node.durable

        def begin() -> None:
            asker.at_end(self._node.follow(lambda at: asker.push(_at(at)), now.seq))

        asker.after_reply(begin)
        return _at(now)

    def _find(self, transfers: list[str]) -> "Future[Finding]":
        if len(transfers) > FIND_MAX:
            raise NoRequest(f"{len(transfers)} transfers are looked for, more than {FIND_MAX}")
        for transfer in transfers:
            if slot_of_transfer(transfer) is None:
                raise NoRequest(f"{transfer!r} is no id of a transfer")

        def look(machine: Machine) -> _Places:
            found = {}
            for transfer in transfers:
                place = machine.place_of(bytes.fromhex(transfer.partition("-")[2]))
                if place is not None:
                    found[transfer] = place
            return _Places(self._node.decided, found)

        return then(self._node.look(look), self._found, self._files)

    def _names(self, first: int) -> "Future[NamesAre]":
        if first < 0:
            raise NoRequest(f"accounts are numbered from 0 on, and {first} is asked for")

        def look(machine: Machine) -> NamesAre:
            ids, ends = machine.ids_from(first, NAMES_MAX)
            return NamesAre(_at(self._node.decided), ids, ends.astype("<u4").tobytes())

        return self._node.look(look)

    def _found(self, places: _Places) -> Finding:
        firsts = {asked: self._firsts.at(place) for asked, place in places.places.items()}
        # The slot in front of an id is its source's, and may have been asked for wrongly.
        found = {asked: first for asked, first in firsts.items() if first.transfer.id == asked}
        return Finding(_at(places.as_of), found)

    def _describe(self, sizes: Sizes) -> Description:
        node, counts = self._node, self._node.counts
        room, room_min = node.room()
        return Description(
            version=self._version,
            epoch=node.epoch,
            answerable=_at(node.durable),
            time_us=node.clock_us(),
            accounts=sizes.accounts,
            transfers=sizes.transfers,
            frames=counts.frames,
            commands=counts.commands,
            flush_seconds=counts.flush_seconds,
            flushes=counts.flushes,
            list_bytes=self._list_bytes(),
            room_bytes=room,
            room_bytes_min=room_min,
        )

    def _list_bytes(self) -> int:
        firsts = segment_firsts(path.name for path in self._folder.iterdir())
        for first in firsts:
            if first not in self._sealed:
                size = (self._folder / segment_name(first)).stat().st_size
                self._sealed[first] = size
        total = sum(self._sealed.values())
        # The last one grows.
        del self._sealed[firsts[-1]]
        return total


def _at(at: durable.At) -> At:
    return At(*at)


def _has_known(answer: NodeAnswer) -> bool:
    """Whether ids among its commands were known before."""
    all_codes = (piece.outcomes.codes for piece in answer.pieces)
    return any(np.any((c == Code.REPLAYED) | (c == Code.REUSED)) for c in all_codes)


def _told(answer: NodeAnswer) -> Answer:
    pieces = [Piece(*piece) for piece in answer.pieces]
    return Answer(pieces, None if answer.rest is None else str(answer.rest))
