"""A model of one transfer between two ledger groups by TC/C or Saga.

What a group makes of a command are the rules that the compiled machine is compared with
(`tests/unit/eventstore/step_books.py`): the ledger's moves, and the protocols' tables. Modelled is
what is around them: every command that was ever sent may come at any time, again and again; clients
begin attempts at the transfer; whoever likes takes an unfinished attempt further, too early or
twice; the destination is closed and opened meanwhile.
"""

from collections.abc import Iterator
from typing import NamedTuple

from coordinator.protocols.phased import IllegalStep
from eventstore.rows import Code, StateCode
from ledger.decide import change_status
from ledger.errors import Bug
from ledger.model import Account, Status, Transfer
from tests.model.explore import Move
from tests.unit.eventstore.machine_books import NOW, Wish
from tests.unit.eventstore.step_books import (
    PROTOCOLS,
    Advance,
    Begin,
    Call,
    Part,
    StepCommand,
    StepLedger,
)

AMOUNT, FUNDS = 5, 10
SOURCE, DESTINATION = "source", "destination"
# Where a command stands in a list does not matter here.
_PLACE = 1
# Of `without`: what a group does is told before it is flushed.
FLUSH_FIRST = "a command is answerable before the next group is called"


class Setting(NamedTuple):
    """How many attempts clients begin, and the rules that are left out: see `StepLedger`."""

    protocol: str
    attempts: int = 2
    changes: bool = True
    without: frozenset[str] = frozenset()


class Group(NamedTuple):
    """What one group has; `recorded` is whether an outcome of the transfer is."""

    account: Account
    parts: tuple[tuple[str, Part], ...] = ()
    recorded: Transfer | None = None
    unfinished: int = 0


class State(NamedTuple):
    """`sent` has all commands that ever were; `before` what the source's group was before its last
    command, as long as that may be lost.
    """

    source: Group
    destination: Group
    sent: frozenset[StepCommand] = frozenset()
    before: Group | None = None
    wrong: str = ""


class Groups:
    """See the module; for `explore`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.protocol = PROTOCOLS[setting.protocol]
        self.wish = Wish(SOURCE, DESTINATION, AMOUNT, protocol=setting.protocol)

    # --- for explore ------------------------------------------------------------------------

    def initial(self) -> State:
        terms = "EUR", FUNDS, 0, "open", 0, NOW, ""
        source = Account(SOURCE, *terms)
        return State(Group(source), Group(source._replace(id=DESTINATION, balance=0)))

    def moves(self, state: State) -> Iterator[Move]:
        if state.wrong:
            return
        now = set(self._may_be_sent(state))
        for command in now - state.sent:
            sent = state._replace(sent=state.sent | {command})
            yield Move(f"{_told(command)} is sent", sent, False)
        for command in state.sent:
            after = self._arrives(state, command)
            if after != state:
                # That a call comes for which nobody waits any more is nothing to depend on.
                is_late = isinstance(command, Call) and command not in now
                yield Move(f"{_told(command)} comes", after, is_late)
        if self.setting.changes:
            yield from self._changes(state)
        if state.before:
            lost = state._replace(source=state.before, before=None)
            yield Move("the source's group crashes", lost, True)

    def what_is_wrong(self, state: State) -> str | None:
        return state.wrong or self._broken(state)

    def is_end(self, state: State) -> bool:
        parts = [part for _, part in (*state.source.parts, *state.destination.parts)]
        return len(self._begun(state)) == self.setting.attempts and not any(
            part.is_unfinished for part in parts
        )

    def describe(self, state: State) -> str:
        return "\n".join(map(str, state))

    # --- what must hold ---------------------------------------------------------------------

    def _broken(self, state: State) -> str | None:
        source, destination = state.source, state.destination
        states = {name: part.state for name, part in destination.parts}
        phases = [(name, part) for name, part in source.parts if part.is_open]
        on_its_way = sum(
            AMOUNT
            for name, part in phases
            if self.protocol.phase(part.phase) in self.protocol.whole
            and states.get(name) != self.protocol.arrived
        )
        there = destination.account.balance
        if source.account.balance + there + on_its_way != FUNDS:
            return f"money is lost or made: {source.account.balance} + {there} + {on_its_way}"
        if source.account.held != sum(AMOUNT for _, part in phases if part.phase == "trying"):
            return f"{source.account.held} are held"
        if destination.account.expected != AMOUNT * list(states.values()).count("tried"):
            return f"{destination.account.expected} are expected"
        if destination.account.entry_count > 1:
            return "it has arrived twice"
        if source.unfinished != len(phases):
            return f"{source.unfinished} are counted as unfinished"
        return None

    # --- what is sent -----------------------------------------------------------------------

    def _begun(self, state: State) -> list[str]:
        return [each.attempt for each in state.sent if isinstance(each, Begin)]

    def _may_be_sent(self, state: State) -> Iterator[StepCommand]:
        """A client's next attempt; and what anybody can make of an unfinished one."""
        number = len(self._begun(state))
        if number < self.setting.attempts:
            yield Begin(self.wish, f"g{number}")
        for name, part in state.source.parts:
            if not part.is_open:
                continue
            phase = self.protocol.phase(part.phase)
            event = self.protocol.orphaned.get(phase) or self.protocol.by_itself.get(phase)
            if event:
                yield Advance(self.wish, phase, event, name)
            if call := self.protocol.call_of(phase):
                yield Call(self.wish, call, name)

    # --- what comes -------------------------------------------------------------------------

    def _arrives(self, state: State, command: StepCommand) -> State:
        try:
            if isinstance(command, Call):
                return self._called(state, command)
            after, _, _ = self._decide(state.source, command)
        except Bug as error:
            return state._replace(wrong=str(error))
        if after == state.source:
            return state
        may_be_lost = FLUSH_FIRST in self.setting.without
        return state._replace(source=after, before=state.source if may_be_lost else None)

    def _called(self, state: State, call: Call) -> State:
        """The destination is called, and whoever has called hears what the answer means."""
        after, code, stands = self._decide(state.destination, call)
        event = self.protocol.refused.event
        if code in (Code.STEPPED, Code.STANDS):
            name = StateCode(stands or 0).name.lower()
            try:
                event = self.protocol.react(self.protocol.state(name), call.call).event
            except IllegalStep as error:
                return state._replace(wrong=str(error))
        phase = next(step.phase for step in self.protocol.phases.values() if step.call is call.call)
        heard = Advance(call.wish, phase, event, call.attempt)
        return state._replace(destination=after, sent=state.sent | {heard})

    def _decide(self, group: Group, command: StepCommand) -> tuple[Group, Code, int | None]:
        ledger = StepLedger(self.setting.without)
        ledger.accounts = {group.account.id: group.account}
        ledger.unfinished = {group.account.id: group.unfinished}
        id_ = self.wish.transfer().id
        ledger.parts = {(id_, name): part for name, part in group.parts}
        if group.recorded:
            ledger.first = {id_: (group.recorded, _PLACE)}
        answer = ledger.apply(command, _PLACE, NOW)
        parts = sorted((name, part) for (_, name), part in ledger.parts.items())
        account = ledger.accounts[group.account.id]._replace(chain="")
        recorded = ledger.first[id_][0] if id_ in ledger.first else None
        unfinished = ledger.unfinished[account.id]
        return Group(account, tuple(parts), recorded, unfinished), answer.code, answer.stands

    def _changes(self, state: State) -> Iterator[Move]:
        account = state.destination.account
        other = Status.CLOSED if account.status == Status.OPEN else Status.OPEN
        if change_status(account, other) is None:
            changed = state.destination._replace(account=account._replace(status=other.value))
            yield Move(f"the destination is {other}", state._replace(destination=changed), True)


def _told(command: StepCommand) -> str:
    what = type(command).__name__
    rest = " ".join(str(each) for each in command if not isinstance(each, Wish))
    return f"{what} {rest}"
