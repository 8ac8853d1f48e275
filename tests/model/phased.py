"""A model of Try-Confirm/Cancel and Saga: one transfer, with one id, between two shards.

What a visit does is not modelled: it is the product's own `begin` and `go_on`. Modelled is what is
around it: clients that send the transfer at once, each through a coordinator of its own; whoever
takes over, too early or too late; requests and answers that are lost; crashes; servers that show a
commit before it is safe, and restart; accounts that are closed and opened meanwhile.
"""

from collections.abc import Iterator
from typing import NamedTuple

from coordinator.engine.in_flight import (
    PROTOCOLS,
    InFlight,
    LocalPlan,
    Position,
    Task,
    begin,
    go_on,
    taken_over,
)
from coordinator.engine.tickets import Latch, NotExecuted, NotExecutedReason, Ticket
from ledger.chain import first_link
from ledger.decide import change_status
from ledger.ids import SLOT_COUNT, transfer_id
from ledger.model import Account, Refusal, Status, Transfer
from shard_client.records import PENDING, Found, Locked, PhaseRow, StepRow, StoredTransfer
from tests.model.explore import Move

AMOUNT, FUNDS = 5, 5
NOW = 1_000
SOURCE, DESTINATION = "source", "destination"
SLOTS = frozenset(range(SLOT_COUNT))
EXCUSE = NotExecuted(NotExecutedReason.ACCOUNT_BUSY, "busy")


class Setting(NamedTuple):
    """One arrangement: how many clients send the transfer, how many may take it over, how many
    faults may happen; `destination` is the account's status at first, None if it is not there.
    """

    protocol: str
    clients: int = 1
    recoverers: int = 1
    faults: int = 1
    destination: Status | None = Status.OPEN
    changes: bool = False
    shows_early: bool = False


class Source(NamedTuple):
    """What the source's shard has."""

    account: Account
    phases: tuple[PhaseRow, ...]
    stored: StoredTransfer | None


class Destination(NamedTuple):
    account: Account | None
    steps: tuple[StepRow, ...]


class Actor(NamedTuple):
    """A coordinator with a client (`gtrid` is its attempt), or one that takes over.

    `answer` is what the client was told of this attempt: the outcome, or "503".
    """

    gtrid: str
    position: Position | None
    is_client: bool
    has_begun: bool = False
    answer: str = ""


class State(NamedTuple):
    """`early` holds what each shard was before a commit that is shown, and not safe yet."""

    source: Source
    destination: Destination
    actors: tuple[Actor, ...]
    faults: int
    early_source: Source | None = None
    early_destination: Destination | None = None
    wrong: str = ""


class Phased:
    """See the module; for `explore`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.protocol = PROTOCOLS[setting.protocol]
        key = transfer_id(SOURCE, "k")
        self.transfer = Transfer(
            key, "k", SOURCE, DESTINATION, AMOUNT, "EUR", None, setting.protocol, NOW
        )

    # --- for explore ------------------------------------------------------------------------

    def initial(self) -> State:
        status = self.setting.destination
        actors = [Actor(f"g{n}", None, True) for n in range(self.setting.clients)]
        actors += [Actor("", None, False)] * self.setting.recoverers
        return State(
            Source(_account(SOURCE, FUNDS), (), None),
            Destination(_account(DESTINATION, 0, status) if status else None, ()),
            tuple(actors),
            self.setting.faults,
        )

    def moves(self, state: State) -> Iterator[Move]:
        for number, actor in enumerate(state.actors):
            if actor.position is None:
                yield from self._entries(state, number)
            elif actor.position.task is not Task.NONE:
                yield from self._visits(state, number)
        if self.setting.changes:
            yield from self._changes(state)
        if state.faults:
            yield from self._restarts(state)

    def what_is_wrong(self, state: State) -> str | None:
        return state.wrong or self._broken_sum(state) or self._broken_promise(state)

    def is_end(self, state: State) -> bool:
        is_idle = all(a.position is None or a.position.task is Task.NONE for a in state.actors)
        has_begun = all(a.has_begun for a in state.actors if a.is_client)
        return is_idle and has_begun and not state.source.phases

    def describe(self, state: State) -> str:
        return "\n".join(map(str, state))

    # --- what must hold ---------------------------------------------------------------------

    def _broken_sum(self, state: State) -> str | None:
        source, destination = state.source, state.destination
        states = {step.gtrid: step.state for step in destination.steps}
        on_its_way = sum(
            AMOUNT
            for row in source.phases
            if self.protocol.phase(row.phase) in self.protocol.whole
            and states.get(row.gtrid) != self.protocol.arrived
        )
        there = destination.account.balance if destination.account else 0
        if source.account.balance + there + on_its_way != FUNDS:
            return f"money is lost or made: {source.account.balance} + {there} + {on_its_way}"
        held = sum(AMOUNT for row in source.phases if row.phase == "trying")
        if source.account.held != held:
            return f"{source.account.held} are held, {held} are reserved"
        expected = sum(AMOUNT for step in destination.steps if step.state == "tried")
        if (destination.account.expected if destination.account else 0) != expected:
            return f"{expected} are expected by the steps"
        if destination.account and destination.account.status == Status.CLOSED and there:
            return "a closed account has money"
        return None

    def _broken_promise(self, state: State) -> str | None:
        stored, destination = state.source.stored, state.destination
        entries = destination.account.entry_count if destination.account else 0
        if entries > 1:
            return "it has arrived twice"
        for actor in state.actors:
            if actor.answer in ("committed", "rejected"):
                if stored is None or stored.status != actor.answer:
                    return f"a client was told {actor.answer}"
                if actor.answer == "rejected" and entries:
                    return "it was refused, and has arrived"
            elif actor.answer == "503" and stored and stored.gtrid == actor.gtrid:
                return "a client was told that nothing has happened"
        if not self.is_end(state):
            return None
        if (stored is not None and stored.status == "committed") != (entries == 1):
            return "its record and its entries differ"
        if any(step.state == "tried" for step in destination.steps):
            return "room is reserved for ever"
        if state.source.account.balance != (0 if entries else FUNDS):
            return "the source was not given its money back"
        return None

    # --- entering ---------------------------------------------------------------------------

    def _entries(self, state: State, number: int) -> Iterator[Move]:
        """A client's transfer begins, unless there is an outcome or an attempt already; or somebody
        takes an attempt over.
        """
        actor = state.actors[number]
        if not actor.is_client:
            for row in state.source.phases:
                position = taken_over(row, 0.0).position
                # `read_phases` makes safe what it has read.
                safe = state._replace(early_source=None)
                taken = _with(safe, number, actor._replace(gtrid=row.gtrid, position=position))
                yield Move(f"{number} takes {row.gtrid} over", taken, False)
            return
        if actor.has_begun:
            return
        ready = actor._replace(has_begun=True)
        if state.source.stored or any(row.outcome == PENDING for row in state.source.phases):
            yield Move(f"{number} finds it", _with(state, number, ready), False)
            return
        flight = InFlight(
            self.transfer, actor.gtrid, Position(None, Task.BEGIN), 0.0, self._ticket()
        )
        visit, _ = begin([flight], self._found(state, flight), NOW, NOW + 1)
        yield from self._outcomes(state, number, ready, flight, visit, "begins")

    def _ticket(self) -> Ticket:
        return Ticket(self.transfer, 0.0, Latch(1), None)

    # --- visits -----------------------------------------------------------------------------

    def _flight(self, actor: Actor) -> InFlight:
        assert actor.position is not None
        return InFlight(self.transfer, actor.gtrid, actor.position, 0.0, None)

    def _visits(self, state: State, number: int) -> Iterator[Move]:
        actor = state.actors[number]
        flight = self._flight(actor)
        absent = set() if state.destination.account else {DESTINATION}
        visit = go_on([flight], self._found(state, flight), absent, NOW, 1)
        phases = {row.attempt: row.phase for row in state.source.phases}
        if any(phases.get(attempt) != was for attempt, was, _ in visit.writes.changed):
            # Somebody else has taken it further: nothing of the visit happens.
            flight.look_up()
            passed = actor._replace(position=flight.position)
            yield Move(f"{number} comes too late", _with(state, number, passed), False)
            return
        what = f"makes a visit ({flight.position.task.name.lower()})"
        yield from self._outcomes(state, number, actor, flight, visit, what)
        if actor.is_client and flight.expire(EXCUSE):
            given_up = _with(state, number, actor._replace(position=flight.position))
            yield Move(f"{number} gives up", given_up, False)

    def _outcomes(
        self, state: State, number: int, actor: Actor, flight: InFlight, visit: LocalPlan, what: str
    ) -> Iterator[Move]:
        """A visit is answered; or its request or its answer is lost; or its coordinator is."""
        is_call = flight.position.task is Task.CALL
        after = self._written(state, visit, at_source=not is_call)
        position = visit.positions[0][1] if visit.positions else flight.position
        answered = self._answered(actor, position)
        safe = after
        # A commit that is answered is on the disk, and so is all that was committed before it.
        if not visit.writes.is_empty:
            early = "early_destination" if is_call else "early_source"
            safe = after._replace(**{early: None})
        yield Move(f"{number} {what}", _with(safe, number, answered), False)
        if not state.faults:
            return
        flight.look_up()
        lost = actor._replace(position=flight.position)
        gone = actor._replace(position=None)
        unheard = self._early(state, after)
        for title, world in (("asks in vain", state), ("is not answered", unheard)):
            less = world._replace(faults=state.faults - 1)
            yield Move(f"{number} {what} and {title}", _with(less, number, lost), True)
            yield Move(f"{number} {what}, {title} and crashes", _with(less, number, gone), True)

    def _answered(self, actor: Actor, position: Position) -> Actor:
        """The actor with what its client is told, as `engine.phased_run.settle` does."""
        answer = actor.answer
        if actor.is_client and not answer:
            flight = InFlight(self.transfer, actor.gtrid, position, 0.0, None)
            if position.stored and flight.can_be_answered:
                answer = position.stored.status
            elif position.is_expired and position.task is not Task.LOOK:
                answer = "503"
        return actor._replace(position=position, answer=answer)

    def _early(self, state: State, after: State) -> State:
        """After a commit whose answer was lost: where it is shown early, it is not safe yet."""
        if not self.setting.shows_early:
            return after
        return after._replace(
            early_source=state.early_source
            or (state.source if after.source != state.source else None),
            early_destination=state.early_destination
            or (state.destination if after.destination != state.destination else None),
        )

    def _found(self, state: State, flight: InFlight) -> Found:
        is_call = flight.position.task is Task.CALL
        account = state.destination.account if is_call else state.source.account
        accounts = {account.id: account} if account and flight.account else {}
        known = {self.transfer.id: state.source.stored} if state.source.stored else {}
        return Found(
            Locked(SLOTS, True, accounts, known, 2**63),
            {row.attempt: row for row in state.source.phases},
            {row.attempt: row.phase for row in state.source.phases},
            {step.attempt: step for step in state.destination.steps},
        )

    def _written(self, state: State, visit: LocalPlan, *, at_source: bool) -> State:
        """What the writes of a visit make of its shard."""
        writes = visit.writes
        if at_source:
            account, rows, stored = state.source
            for attempt, _, new in writes.changed:
                (old,) = (row for row in rows if row.attempt == attempt)
                rows = tuple(row for row in rows if row.attempt != attempt)
                rows += (old._replace(**new._asdict()),) if new else ()
            rows += tuple(writes.begun)
            for record in writes.transfers:
                if stored:
                    return state._replace(wrong=f"a second outcome: {record.status}")
                stored = record
            account = writes.accounts.get(SOURCE, account)
            return state._replace(source=Source(account, rows, stored))
        there, steps = state.destination
        for step in writes.next_steps:
            steps = tuple(old for old in steps if old.attempt != step.attempt)
        steps += (*writes.new_steps, *writes.next_steps)
        there = writes.accounts.get(DESTINATION) or there
        return state._replace(destination=Destination(there, steps))

    # --- others -----------------------------------------------------------------------------

    def _changes(self, state: State) -> Iterator[Move]:
        """The destination is opened or closed, and the source is, as far as it may be."""
        account = state.destination.account
        if account is None:
            opened = Destination(_account(DESTINATION, 0), state.destination.steps)
            yield Move("the destination is opened", state._replace(destination=opened), True)
        else:
            other = Status.CLOSED if account.status == Status.OPEN else Status.OPEN
            if change_status(account, other) is None:
                changed = account._replace(status=other.value)
                there = Destination(changed, state.destination.steps)
                yield Move(f"the destination is {other}", state._replace(destination=there), True)
        source = state.source.account
        unfinished = len(state.source.phases)
        refusal: Refusal | None = change_status(source, Status.CLOSED, unfinished)
        if source.status == Status.OPEN and refusal is None:
            shut = state.source._replace(account=source._replace(status=Status.CLOSED.value))
            yield Move("the source is closed", state._replace(source=shut), True)

    def _restarts(self, state: State) -> Iterator[Move]:
        """A server is killed: what was shown early is gone."""
        less = state._replace(faults=state.faults - 1)
        if state.early_source:
            back = less._replace(source=state.early_source, early_source=None)
            yield Move("the source's server restarts", back, True)
        if state.early_destination:
            there = less._replace(destination=state.early_destination, early_destination=None)
            yield Move("the destination's server restarts", there, True)


def _account(name: str, balance: int, status: Status = Status.OPEN) -> Account:
    return Account(name, "EUR", balance, 0, status.value, 0, NOW, first_link(name, "EUR"))


def _with(state: State, number: int, actor: Actor) -> State:
    """The state with this actor in its place; who takes over is free again when it has finished."""
    if not actor.is_client and actor.position and actor.position.task is Task.NONE:
        actor = Actor("", None, False)
    actors = list(state.actors)
    actors[number] = actor
    return state._replace(actors=tuple(actors))
