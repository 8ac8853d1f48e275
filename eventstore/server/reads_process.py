"""The process of a read side: it follows its node's list, makes snapshots, and answers reads.

What it keeps can be dropped and is made anew from the list. So whatever fails ends it, with 1, and
the next start goes on from what it had kept.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from eventstore.client import Client
from eventstore.machine.errors import LimitReached
from eventstore.machine.machine import REPLAY_LIMITS, Machine
from eventstore.reading.errors import ReadingError
from eventstore.reading.follower import Follower
from eventstore.reading.side import ReadSide, drop
from eventstore.recent import Recent
from eventstore.segments.chain import link_of
from eventstore.segments.errors import ListError, NoList
from eventstore.segments.frame import Frame, Identity
from eventstore.segments.reader import Reader
from eventstore.server.beginning import NoFrame, identity_in
from eventstore.server.ending import End, Why
from eventstore.server.limits import Limits
from eventstore.server.reads_service import ReadsService
from eventstore.server.server import Server
from eventstore.snapshots import reader as snapshots
from eventstore.snapshots import writer
from eventstore.snapshots.names import FOLDER
from eventstore.snapshots.policy import Policy
from eventstore.wire.errors import ClientError
from eventstore.wire.proofs import Hello
from eventstore.wire.questions import At, Follow

log = logging.getLogger(__name__)

# How often the node is tried while it is away, and questions that wait for too long are looked for.
_RETRY_S = 0.2
_EXPIRE_S = 0.5
_LAST_WORDS_S = 1.0
# How long is waited for the list to begin.
_BEGIN_S = 30.0
_CONNECT_TIMEOUT_S = 5.0
_NOTHING = At(0, 0)


class Options(NamedTuple):
    """See `python -m eventstore reads --help`."""

    folder: Path
    keep: Path
    listen: tuple[str, int]
    node: tuple[str, int]
    cluster: str
    secret: bytes
    limits: Limits = Limits()
    policy: Policy = Policy()
    rebuilds: bool = False


def run_reads(options: Options) -> int:
    """Serve until the end; the exit code."""
    end = End()
    try:
        identity = _begun(options)
        machine, snapshot = _machine(options.folder, identity)
        options.keep.mkdir(mode=0o700, exist_ok=True)
        if options.rebuilds:
            drop(options.keep)
            event = {"event": "reads.dropped"}
            log.warning("what was kept in %s is made anew", options.keep, extra=event)
        side = ReadSide.open(options.keep, options.folder, identity, machine)
    except (ListError, ReadingError, LimitReached, OSError) as error:
        log.critical(
            "the read side does not start: %s", error, extra={"event": "reads.not_started"}
        )
        return 1
    seen = _Seen(side, machine, identity, options, snapshot)

    def new_reader() -> Reader:
        return Reader(options.folder, identity)

    follower = Follower(seen, new_reader(), end.tell_death)
    link = _NodeLink(options, follower.tell)
    service = ReadsService(
        side, machine, new_reader, lambda: link.answerable, lambda: seen.snapshot
    )
    seen.on_seen = service.saw
    hello = Hello(options.cluster, str(identity.group), identity.branch, 0, None)
    try:
        server = Server(options.listen, options.secret, hello, service.handlers, options.limits)
    except OSError as error:
        where = "{}:{}".format(*options.listen)
        not_started = {"event": "reads.not_started"}
        log.critical("the read side cannot listen at %s: %s", where, error, extra=not_started)
        side.close()
        return 1
    end.catch_signals()
    with server:
        follower.start()
        link.start(service.expire)
        where = "{}:{}".format(*server.address)
        extra: dict[str, object] = {
            "event": "reads.serving",
            "address": where,
            "seq": side.as_of.seq,
        }
        log.info("the read side of group %s serves at %s", identity.group, where, extra=extra)
        if end.wait() == Why.DEATH:
            server.close(_LAST_WORDS_S)
            os._exit(1)
        log.info("the read side ends: it was told to", extra={"event": "reads.stopping"})
        server.stop_listening()
        link.stop()
        follower.stop()
        side.close()
        service.close()
    log.info("the read side has ended", extra={"event": "reads.stopped"})
    return 0


def _begun(options: Options) -> Identity:
    """Whose list it is. Where a node and its read side are started together for the first time, the
    list is about to begin. Raises what `identity_in` does.
    """
    give_up = time.monotonic() + _BEGIN_S
    was_told = False
    while True:
        try:
            return identity_in(options.folder, options.cluster, may_begin=False)
        except (NoList, NoFrame) as error:
            if time.monotonic() > give_up:
                raise
            if not was_told:
                extra = {"event": "reads.no_list"}
                log.warning("the read side waits for its list to begin: %s", error, extra=extra)
            was_told = True
        time.sleep(_RETRY_S)


def _machine(folder: Path, identity: Identity) -> tuple[Machine, At]:
    """A machine as far as snapshots go, and after which frame that is."""
    recent = Recent(Reader(folder, identity))

    def new_machine() -> Machine:
        return Machine(os.urandom(16), recent.command, REPLAY_LIMITS)

    found = snapshots.newest(
        folder / FOLDER, identity, snapshots.in_list(Reader(folder, identity)), new_machine
    )
    if found is None:
        return new_machine(), _NOTHING
    return found.machine, At(found.link.seq, found.link.time_us)


class _Seen:
    """What the follower gives frames to: the read side, then those who wait, then a snapshot, if it
    is time for one.
    """

    def __init__(
        self, side: ReadSide, machine: Machine, identity: Identity, options: Options, snapshot: At
    ) -> None:
        self._side, self._machine, self._identity = side, machine, identity
        self._folder, self._policy = options.folder / FOLDER, options.policy
        self.snapshot = snapshot
        self.on_seen: Callable[[int], None] = lambda seq: None
        self._commands = self._frames = 0
        self._since = time.monotonic()

    @property
    def next_seq(self) -> int:
        """See `ReadSide`."""
        return self._side.next_seq

    def apply(self, frame: Frame) -> None:
        """See `ReadSide`."""
        is_new = frame.header.seq > self._machine.seq
        self._side.apply(frame)
        self.on_seen(self._side.as_of.seq)
        if is_new:
            self._commands += len(frame.body.commands)
            self._frames += 1
            self._make_snapshot(frame)

    def _make_snapshot(self, frame: Frame) -> None:
        accounts, transfers = self._machine.sizes.accounts, self._machine.sizes.transfers
        seconds = time.monotonic() - self._since
        is_due = self._policy.is_due(
            self._commands, accounts, seconds, frames_since=self._frames, transfers=transfers
        )
        if not is_due:
            return
        try:
            writer.write(self._folder, self._identity, link_of(frame.header), self._machine)
        except ListError as error:
            # A start takes longer without it, and that is all.
            log.error("no snapshot was made: %s", error, extra={"event": "snapshot.not_made"})
        else:
            self.snapshot = At(frame.header.seq, frame.header.time_us)
            extra = {"event": "snapshot.made", "seq": frame.header.seq}
            log.info("a snapshot after frame %d was made", frame.header.seq, extra=extra)
            self._commands = self._frames = 0
        self._since = time.monotonic()


class _NodeLink:
    """Keeps a connection to the node, which says up to where its list is answerable."""

    def __init__(self, options: Options, tell: Callable[[int], None]) -> None:
        self._options, self._tell = options, tell
        self.answerable = _NOTHING
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, expire: Callable[[], None]) -> None:
        """Connect, now and whenever the connection has broken; call `expire` now and then."""
        for name, work in (
            ("node", self._keep_connected),
            ("expire", lambda: self._expire(expire)),
        ):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the connection."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _expire(self, expire: Callable[[], None]) -> None:
        while not self._stopping.wait(_EXPIRE_S):
            expire()

    def _keep_connected(self) -> None:
        was_told = False
        while not self._stopping.is_set():
            client = Client(
                *self._options.node,
                self._options.secret,
                self._options.cluster,
                connect_timeout_s=_CONNECT_TIMEOUT_S,
                on_push=self._learn,
            )
            try:
                client.connect()
                self._learn(client.ask(Follow(), At, _CONNECT_TIMEOUT_S))
                was_told = False
                while client.is_alive and not self._stopping.wait(_RETRY_S):
                    pass
            except (ClientError, TimeoutError) as error:
                if not was_told:
                    extra = {"event": "reads.no_node"}
                    log.warning("the node does not answer: %s", error, extra=extra)
                was_told = True
            finally:
                client.close()
            self._stopping.wait(_RETRY_S)

    def _learn(self, at: At) -> None:
        if at.seq > self.answerable.seq:
            self.answerable = at
            self._tell(at.seq)
