"""The points at which faults can be, the bugs that can be planted, and how both are woven in.

Every name of the product that is touched stands in POINTS, PLANTS or _SILENCE, and is looked up at
each start of a test build: one that is gone stops the start, so that no fault silently stays away.
"""

import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from enum import Enum
from functools import partial, wraps
from typing import Any, NamedTuple, cast

import pymysql.err

from coordinator.engine.commands import Commands
from coordinator.engine.in_flight import Task
from coordinator.protocols import saga
from coordinator.protocols.recovery import Verdict
from faults.plan import Fault, FaultsError, Mode, Plan, Traits
from shard_client.branch import Branch, MySqlSession
from shard_client.connection import Reply, Result, ShardConnection
from shard_client.errors import ConnectionLost, ShardError, StatementRefused, translate
from shard_client.records import LocalWrites

log = logging.getLogger("faults")

Function = Callable[..., Any]

_PRODUCT = ("ledger", "shard_client", "coordinator")
_LOCK_WAIT_TIMEOUT, _DEADLOCK = 1205, 1213


class When(Enum):
    BEFORE = "before the call: nothing is sent"
    AFTER = "when the answer has arrived, before anybody has seen it"
    BETWEEN = "before the last statement of the packet, the others being carried out"


class Point(NamedTuple):
    """A place in the product: `targets` are MODULE:CLASS.METHOD or MODULE:FUNCTION. The first
    argument of each is a branch or a connection to a shard, or else the point is on no shard.

    With `deed` it is reached only by a transaction that does this, see `_deeds`.

    With `fail` the server has answered with the error `code` to the statement of the packet that
    `statement` counts, from 0.
    """

    when: When
    targets: tuple[str, ...]
    what: str
    code: int = _DEADLOCK
    statement: int = 0
    has_shard: bool = True
    remote_only: bool = False
    deed: str = ""

    @property
    def traits(self) -> Traits:
        needs_shard = {Mode.FAIL, Mode.CUT}
        return Traits(self.has_shard, set(Mode) if self.has_shard else set(Mode) - needs_shard)


_BRANCH = "shard_client.branch:Branch"
_COMMIT = ("shard_client.phases:MySqlLocalTransaction.commit",)
_COMMIT_POINT = (f"{_BRANCH}.decide", f"{_BRANCH}.commit_alone")
_COMMANDS = "coordinator.engine.commands:Commands"
_COLLECTING = ("shard_client.collect:drop_decisions", "shard_client.collect:drop_markers")

POINTS: Mapping[str, Point] = {
    "before-lock": Point(
        When.BEFORE, (f"{_BRANCH}.lock",), "no lock packet is sent", _LOCK_WAIT_TIMEOUT
    ),
    "after-lock": Point(
        When.AFTER, (f"{_BRANCH}.lock",), "the locks are held, nothing is written", statement=1
    ),
    "before-prepare": Point(
        When.BEFORE, (f"{_BRANCH}.write",), "write and prepare is not sent", remote_only=True
    ),
    "after-prepare": Point(
        When.AFTER, (f"{_BRANCH}.write",), "this branch has voted yes", remote_only=True
    ),
    "before-decision": Point(
        When.BEFORE, _COMMIT_POINT, "all have voted yes; or a lone shard has all its rows"
    ),
    "between-decision-and-commit": Point(
        When.BETWEEN, (f"{_BRANCH}.decide",), "the row is in, home has not committed", statement=1
    ),
    "after-decision": Point(
        When.AFTER, _COMMIT_POINT, "home, or a lone shard, has committed", statement=1
    ),
    "before-commit": Point(
        When.BEFORE, (f"{_BRANCH}.commit",), "decided, this branch still prepared"
    ),
    "after-commit": Point(
        When.AFTER, (f"{_BRANCH}.commit",), "this branch is committed, nobody knows it yet"
    ),
    "before-answer": Point(
        When.BEFORE,
        ("coordinator.engine.scheduler:Queue.settle",),
        "no client is told",
        has_shard=False,
    ),
    "before-arbitration": Point(
        When.BEFORE,
        ("shard_client.prepared:arbitrate",),
        "recovery is about to ask home, or to abort there",
        _LOCK_WAIT_TIMEOUT,
    ),
    "before-finish": Point(
        When.BEFORE,
        ("shard_client.prepared:finish",),
        "recovery is about to commit branches, or to roll them back",
    ),
    "before-cleaning-up": Point(
        When.BEFORE, _COLLECTING, "decisions, or markers after them, are about to be collected"
    ),
}

# What is on the way to a ledger group and from there.
GROUP_POINTS: Mapping[str, Point] = {
    "before-sending": Point(
        When.BEFORE,
        (f"{_COMMANDS}._look_up",),
        "a group's commands may have happened from here on, and no byte of them is sent",
        has_shard=False,
    ),
    "before-telling": Point(
        When.BEFORE,
        (f"{_COMMANDS}._answered",),
        "a group has decided commands, or is lost, and no client is told",
        has_shard=False,
    ),
}

# What transactions do for transfers by TC/C and Saga: a point before each is sent, and one when it
# is committed and nobody knows it yet.
DEEDS: Mapping[str, str] = {
    "phase-trying": "the source's money is reserved, and the transfer is in the phase table",
    "phase-crediting": "the source is debited, and the transfer is in the phase table",
    "phase-confirming": "the transfer is decided, and the source has paid",
    "phase-cancelling": "the source's money is released",
    "phase-compensating": "the refusal is recorded, the source not given its money back yet",
    "phase-over": "the last that a phase row was there for is done, and it goes",
    "step-tried": "the destination expects the money",
    "step-confirmed": "the destination has received what it expected",
    "step-cancelled": "the destination expects nothing any more",
    "step-credited": "the destination has received the money",
    "step-refused": "the destination has said no",
}
POINTS = {
    **POINTS,
    **GROUP_POINTS,
    **{f"before-{d}": Point(When.BEFORE, _COMMIT, f"not yet: {DEEDS[d]}", deed=d) for d in DEEDS},
    **{f"after-{d}": Point(When.AFTER, _COMMIT, DEEDS[d], deed=d) for d in DEEDS},
}


def _deeds(writes: LocalWrites) -> set[str]:
    """What a transaction does."""
    phases = {row.phase for row in writes.begun}
    phases |= {c.state.phase for c in writes.changed if c.state and c.state.phase != c.was}
    phases |= {"over" for change in writes.changed if change.state is None}
    steps = {step.state for step in (*writes.new_steps, *writes.next_steps)}
    return {*(f"phase-{phase}" for phase in phases), *(f"step-{state}" for state in steps)}


class Plant(NamedTuple):
    """A bug, for showing that the oracles catch it: each target is replaced by `bug(target)`."""

    what: str
    bugs: Mapping[str, Callable[[Function], Function]]


# --- weaving --------------------------------------------------------------------------------


def traits() -> dict[str, Traits]:
    """What can be said of each point in TANDEM_FAULTS."""
    return {name: point.traits for name, point in POINTS.items()}


def weave(plan: Plan) -> None:
    """Put the faults of a plan into the product, for the rest of this process's life.

    To be called when all of the product is loaded, before any of it runs. Raises FaultsError.
    """
    check_targets()
    for name in plan.points:
        strike = partial(_strike, plan, name)
        for target in POINTS[name].targets:
            _replace(target, partial(_woven, POINTS[name], strike))


def plant(name: str) -> None:
    """Put a bug into the product. Raises FaultsError."""
    check_targets()
    if name not in PLANTS:
        raise FaultsError(f"there is no bug {name!r} to plant; allowed: {', '.join(PLANTS)}")
    for target, bug in PLANTS[name].bugs.items():
        _replace(target, bug)


def check_targets() -> None:
    """Raise FaultsError if the product lacks a name that could be woven into."""
    for point in POINTS.values():
        for target in point.targets:
            _find(target)
    for bug in PLANTS.values():
        for target in bug.bugs:
            _find(target)
    _find(_SILENCE)


def _find(target: str) -> tuple[Any, str, Function]:
    """The module or class that holds a target, its name there, and itself."""
    module, _, path = target.partition(":")
    try:
        holder: Any = importlib.import_module(module)
        *outer, name = path.split(".")
        for part in outer:
            holder = getattr(holder, part)
        return holder, name, getattr(holder, name)
    except (ImportError, AttributeError) as error:
        raise FaultsError(
            f"the product has no {target} (any more): faults/points.py must follow it ({error})"
        ) from error


def _replace(target: str, change: Callable[[Function], Function]) -> None:
    """Put `change(target)` in the place of a target, wherever the product has it by its name."""
    holder, name, real = _find(target)
    changed = wraps(real)(change(real))
    setattr(holder, name, changed)
    for module_name, module in list(sys.modules.items()):
        is_product = module_name.partition(".")[0] in _PRODUCT
        if is_product and vars(module).get(name) is real:
            setattr(module, name, changed)


def _woven(point: Point, strike: Callable[[Any], None], real: Function) -> Function:
    """`real` with a fault before it, after it, or in the middle of it."""

    def before(subject: Any, *args: Any, **kwargs: Any) -> Any:
        strike(subject)
        return real(subject, *args, **kwargs)

    def after(subject: Any, *args: Any, **kwargs: Any) -> Any:
        return _Late(real(subject, *args, **kwargs), lambda: strike(subject))

    def between(branch: Branch, *args: Any, **kwargs: Any) -> Any:
        parted = _Parted(branch.connection, lambda: strike(branch))
        return _through(parted, branch, real, *args, **kwargs)

    woven = {When.BEFORE: before, When.AFTER: after, When.BETWEEN: between}[point.when]
    if point.deed:
        return lambda session, writes, *args, **kwargs: (
            woven if point.deed in _deeds(writes) else real
        )(session, writes, *args, **kwargs)
    if not point.remote_only:
        return woven
    return lambda branch, *args, **kwargs: (real if branch.is_local else woven)(
        branch, *args, **kwargs
    )


class _Late:
    """The answer to a packet; something is done when it has arrived."""

    def __init__(self, reply: Reply[Any], then: Callable[[], None]) -> None:
        self._reply = reply
        self._then = then

    def get(self) -> Any:
        value = self._reply.get()
        self._then()
        return value


class _Parted:
    """A connection that sends the last statement of a packet by itself, after `between`."""

    def __init__(self, real: ShardConnection, between: Callable[[], None]) -> None:
        self._real = real
        self._between = between

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def call(
        self,
        statements: Sequence[str],
        deadline: float,
        parse: Callable[[list[Result]], Any],
        **options: bool,
    ) -> Any:
        *first, last = statements
        if first:
            self._real.query(first, deadline)
        self._between()
        return _Shifted(self._real.call([last], deadline, parse, **options), len(first))


class _Shifted:
    """The answer to the rest of a packet whose first statements were sent before."""

    def __init__(self, reply: Reply[Any], by: int) -> None:
        self._reply = reply
        self._by = by

    def get(self) -> Any:
        try:
            return self._reply.get()
        except ShardError as error:
            if error.statement is not None:
                error.statement += self._by
            raise


class _LastOnly:
    """A connection that leaves out all of a packet but its last statement."""

    def __init__(self, real: ShardConnection) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def call(
        self,
        statements: Sequence[str],
        deadline: float,
        parse: Callable[[list[Result]], Any],
        **options: bool,
    ) -> Any:
        return self._real.call(statements[-1:], deadline, parse, **options)


def _through(
    connection: _Parted | _LastOnly, branch: Branch, real: Function, *args: Any, **kwargs: Any
) -> Any:
    """What `real` gives when the branch has this connection in the place of its own."""
    own = branch.connection
    branch.connection = cast(ShardConnection, connection)
    try:
        return real(branch, *args, **kwargs)
    finally:
        branch.connection = own


# --- striking -------------------------------------------------------------------------------

_thawed = threading.Event()
# How long gunicorn bears a worker's silence; 0 is for ever.
_SILENCE = "coordinator.server:SILENCE_MAX_S"


def await_thaw() -> None:
    """Prepare this process, and those that it will fork, for `freeze`. In the main thread only.

    What comes back is to be what was frozen, so no worker is replaced for its silence.

    The thread that sends SIGSTOP may run on for a moment; waiting for the thaw, it does nothing.
    """
    signal.signal(signal.SIGCONT, lambda *_: _thawed.set())
    holder, name, _ = _find(_SILENCE)
    setattr(holder, name, 0)


def _strike(plan: Plan, name: str, subject: Any) -> None:
    """A point is reached: carry out the fault that fires there, if one does."""
    connection = _connection_of(subject)
    shard = connection.shard if connection else None
    fault = plan.take(name, shard)
    if fault is None:
        return
    gtrid = getattr(subject, "gtrid", "")
    where = f"{name}@{shard}" if shard else name
    extra = {"event": "fault.struck", "point": where, "mode": f"{fault.mode}", "gtrid": gtrid}
    log.warning("fault at %s: %s %s", where, fault.mode, gtrid, extra=extra)
    if fault.mode in (Mode.FAIL, Mode.CUT):
        if connection is None:
            raise FaultsError(f"{name} was reached without a connection")
        connection.close()
        raise _loss(fault, connection.shard)
    _PERFORM[fault.mode](fault)


def _connection_of(subject: Any) -> ShardConnection | None:
    if isinstance(subject, MySqlSession):
        return subject.connection
    return subject if isinstance(subject, ShardConnection) else None


def _loss(fault: Fault, shard: str) -> ShardError:
    """What the product would have made of the server's answer, or of its absence."""
    if fault.mode is Mode.CUT:
        return ConnectionLost(shard, f"cut on purpose: {fault}")
    point = POINTS[fault.point]
    error = pymysql.err.OperationalError(point.code, f"failed on purpose: {fault}")
    return translate(shard, error, statement=point.statement)


def _freeze(fault: Fault) -> None:
    _thawed.clear()
    os.killpg(0, signal.SIGSTOP)
    _thawed.wait()


_PERFORM: Mapping[Mode, Callable[[Fault], None]] = {
    Mode.KILL: lambda fault: os.killpg(0, signal.SIGKILL),
    Mode.KILL_WORKER: lambda fault: os.kill(os.getpid(), signal.SIGKILL),
    Mode.FREEZE: _freeze,
    Mode.DELAY: lambda fault: time.sleep(fault.seconds),
}


# --- bugs -----------------------------------------------------------------------------------


def _commit_without_decision(real: Function) -> Function:
    def decide(branch: Branch, *args: Any, **kwargs: Any) -> Any:
        return _through(_LastOnly(branch.connection), branch, real, *args, **kwargs)

    return decide


def _now(_: object) -> int:
    """The stamp before which decisions count as old."""
    return time.time_ns() // 1000


def _refund_unasked(real: Function) -> Function:
    def resumed(*args: Any) -> Any:
        place = real(*args)
        if place.phase is not saga.Phase.CREDITING:
            return place
        return place._replace(task=Task.ADVANCE, event=saga.Event.REFUSED)

    return resumed


def _lost_is_refused(real: Function) -> Function:
    def answered(
        commands: Commands, shard: str, parcels: Any, tickets: Any, fresh: Any, future: Future[Any]
    ) -> None:
        error = future.exception()
        if not isinstance(error, ConnectionLost):
            real(commands, shard, parcels, tickets, fresh, future)
            return
        refused = StatementRefused(error.shard, error.text)
        commands._not_taken(shard, parcels, fresh, refused)

    return answered


PLANTS: Mapping[str, Plant] = {
    "commit-without-decision": Plant(
        "home commits its part of a group, but not the decision",
        {f"{_BRANCH}.decide": _commit_without_decision},
    ),
    "unknown-is-done": Plant(
        "a branch that its server does not know is taken for finished, without a look",
        {"coordinator.protocols.recovery:judge_unknown": lambda real: lambda *_: Verdict.DONE},
    ),
    "refund-unasked": Plant(
        "whoever takes a Saga over gives the money back, without asking the destination",
        {"coordinator.engine.in_flight:_resumed": _refund_unasked},
    ),
    "collect-early": Plant(
        "decisions are collected as soon as they are there, whether branches are finished or not",
        {
            "coordinator.protocols.recovery:may_collect_committed": lambda real: lambda *_: True,
            "coordinator.recovery.purge:Purge._before": lambda real: _now,
        },
    ),
    "lost-is-refused": Plant(
        "commands of a ledger group whose answer is lost are told as not executed",
        {f"{_COMMANDS}._answered": _lost_is_refused},
    ),
}
