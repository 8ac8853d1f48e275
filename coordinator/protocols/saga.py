"""A Saga of one transfer: debit the source, then credit the destination; if that is refused, give
the source its money back.

Forward recovery: in CREDITING the credit is repeated until it is answered, whoever crashes and
however long the destination's shard is away. Backward recovery: in COMPENSATING the refund is
repeated until it succeeds. In between the money is in neither account, and the phase table is where
it is accounted for.

See `phased.py` for how the tables are read.
"""

from enum import StrEnum

from coordinator.protocols.phased import Outcome, PhasedProtocol, Reaction, Step
from ledger.decide import Move


class Phase(StrEnum):
    BEGINNING = "beginning"
    CREDITING = "crediting"
    COMPENSATING = "compensating"
    # The ends.
    COMPLETED = "completed"
    COMPENSATED = "compensated"


class Event(StrEnum):
    ACCEPTED = "accepted"
    CREDITED = "credited"
    REFUSED = "refused"
    DUE = "due"


class Call(StrEnum):
    CREDIT = "credit"


class State(StrEnum):
    """The destination's part of a transfer, on its shard."""

    ABSENT = "absent"
    CREDITED = "credited"
    REFUSED = "refused"


_P, _E, _C, _S = Phase, Event, Call, State

PHASES: dict[tuple[StrEnum, StrEnum], Step] = {
    (_P.BEGINNING, _E.ACCEPTED): Step(_P.CREDITING, Move.DEBIT, _C.CREDIT),
    (_P.CREDITING, _E.CREDITED): Step(_P.COMPLETED, None, None, Outcome.COMMITTED),
    (_P.CREDITING, _E.REFUSED): Step(_P.COMPENSATING, None, None, Outcome.REJECTED),
    (_P.COMPENSATING, _E.DUE): Step(_P.COMPENSATED, Move.REFUND, None),
}

CALLS: dict[tuple[StrEnum, StrEnum], Reaction] = {
    (_S.ABSENT, _C.CREDIT): Reaction(_S.CREDITED, Move.CREDIT, _E.CREDITED),
    (_S.CREDITED, _C.CREDIT): Reaction(_S.CREDITED, None, _E.CREDITED),
    # Also when it would be allowed by now: the refund may be on its way.
    (_S.REFUSED, _C.CREDIT): Reaction(_S.REFUSED, None, _E.REFUSED),
}

SAGA = PhasedProtocol(
    name="saga",
    phases=PHASES,
    calls=CALLS,
    begin=Phase.BEGINNING,
    accepted=Event.ACCEPTED,
    absent=State.ABSENT,
    refused=Reaction(State.REFUSED, None, Event.REFUSED),
    by_itself={Phase.COMPENSATING: Event.DUE},
    orphaned={},
    final=frozenset({Phase.COMPLETED, Phase.COMPENSATED}),
    undecided=frozenset({Phase.CREDITING}),
    arrived=State.CREDITED,
    whole={Phase.CREDITING: Move.REFUND, Phase.COMPENSATING: Move.REFUND},
    source_states={Phase.CREDITING: "debited", Phase.COMPENSATING: "debited"},
)
