"""What Try-Confirm/Cancel and Saga have in common: a transfer goes through phases, each in local
transactions, and the phase table on the source's shard says in which it is.

A protocol is two tables. PHASES is the transfer's: (phase, event) -> Step. CALLS is the
participant's on the destination's shard: (state, call) -> Reaction. What happens to the source's
account belongs to the step itself: it is done in the one local transaction that changes the phase.

Pure: whoever drives a protocol makes the step durable, then calls the destination, and comes back
with the event that it has heard. Everything may be repeated, by anybody, at any time: a step that
was made already does not fit the phase any more, and a call that was carried out already changes
nothing and is answered as it was.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from ledger.decide import Move
from ledger.errors import Bug


class Outcome(StrEnum):
    """What is recorded of a transfer, for good."""

    COMMITTED = "committed"
    REJECTED = "rejected"


class Step(NamedTuple):
    """Where an event leads: in one local transaction on the source's shard be in `phase`, do
    `source` to the source's account, and record `outcome`; then make `call` on the destination's
    shard until it answers. In the phases without a call the next event comes by itself.
    """

    phase: StrEnum
    source: Move | None
    call: StrEnum | None
    outcome: Outcome | None = None


class Reaction(NamedTuple):
    """What a call does on the destination's shard, in one local transaction: `move` to its account,
    and the state in which the participant is then, for ever. `event` is what the caller hears. If
    the money rules refuse the move, it is `refused` that holds.
    """

    state: StrEnum
    move: Move | None
    event: StrEnum


class IllegalStep(Bug):
    """An event that cannot occur in this phase, or a call in this state."""


class PhasedProtocol(NamedTuple):
    """A protocol of phases. `begin` and `accepted` are where a transfer enters; `absent` is the
    state of a participant that was not called yet, `refused` of one that has said no.

    `by_itself` has the event of each phase that has no call, and `orphaned` that of each phase in
    which whoever takes a transfer over does not repeat the call.
    """

    name: str
    phases: Mapping[tuple[StrEnum, StrEnum], Step]
    calls: Mapping[tuple[StrEnum, StrEnum], Reaction]
    begin: StrEnum
    accepted: StrEnum
    absent: StrEnum
    refused: Reaction
    by_itself: Mapping[StrEnum, StrEnum]
    orphaned: Mapping[StrEnum, StrEnum]
    final: frozenset[StrEnum]
    # In these nothing is decided yet: the transfer is pending.
    undecided: frozenset[StrEnum]
    source_states: Mapping[StrEnum, str]
    # While the destination is not in the state `arrived`, what makes a transfer in each phase look
    # whole, to whoever reads both accounts at one moment: as if it had not begun, or were done.
    arrived: StrEnum
    whole: Mapping[StrEnum, Move]

    def step(self, phase: StrEnum, event: StrEnum) -> Step:
        """Where an event leads from a phase. Raises IllegalStep."""
        try:
            return self.phases[phase, event]
        except KeyError:
            raise IllegalStep(f"{event} cannot occur while {phase} ({self.name})") from None

    def react(self, state: StrEnum, call: StrEnum) -> Reaction:
        """What a call does to a participant in this state. Raises IllegalStep."""
        try:
            return self.calls[state, call]
        except KeyError:
            raise IllegalStep(f"{call} cannot be called when {state} ({self.name})") from None

    @property
    def first(self) -> Step:
        return self.phases[self.begin, self.accepted]

    @property
    def first_move(self) -> Move:
        """What a transfer does to its source when it begins. Raises Bug if that is nothing: the
        money would be in its destination without having left anywhere.
        """
        if self.first.source is None:
            raise Bug(f"{self.name} begins without taking anything from the source: {self.first}")
        return self.first.source

    def phase(self, text: str) -> StrEnum:
        """A phase by its name in the phase table."""
        return type(self.begin)(text)

    def state(self, text: str) -> StrEnum:
        """The state of a participant by its name in the table of steps."""
        return type(self.absent)(text)

    def call_of(self, phase: StrEnum) -> StrEnum | None:
        """The call that is made in a phase."""
        return next(step.call for step in self.phases.values() if step.phase is phase)

    def diagram(self) -> str:
        """Both tables as Mermaid state diagrams, for the documents."""
        return "\n".join([*self._diagram_of_phases(), "", *self._diagram_of_calls()]) + "\n"

    def _diagram_of_phases(self) -> list[str]:
        lines = ["stateDiagram-v2", f"    [*] --> {self.begin.name.lower()}"]
        for (phase, event), step in self.phases.items():
            deeds = [f"source: {step.source}"] if step.source else []
            deeds += [f"record {step.outcome}"] if step.outcome else []
            deeds += [f"call {step.call}"] if step.call else []
            text = "; ".join(deeds) or "forget it"
            target = step.phase.name.lower()
            lines.append(f"    {phase.name.lower()} --> {target}: {event} / {text}")
        return lines + [f"    {phase.name.lower()} --> [*]" for phase in sorted(self.final)]

    def _diagram_of_calls(self) -> list[str]:
        lines = ["stateDiagram-v2", f"    [*] --> {self.absent.name.lower()}"]
        for (state, call), (after, what, event) in self.calls.items():
            before, text = state.name.lower(), what or "nothing again"
            lines.append(f"    {before} --> {after.name.lower()}: {call} / {text} ({event})")
            if what in (Move.EXPECT, Move.CREDIT):
                refused = self.refused
                no = f"{call}, not allowed / nothing ({refused.event})"
                lines.append(f"    {before} --> {refused.state.name.lower()}: {no}")
        return lines
