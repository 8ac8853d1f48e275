"""Try-Confirm/Cancel of one transfer: reserve on both sides, then move on both, or release on both.

Trying reserves the amount on the source, which can be spent no more, and room for it on the
destination, so that whatever was tried can be confirmed. The change of the phase to CONFIRMING is
the commit point. Up to it every crash means *cancelled*, from it on *confirmed*.

See `phased.py` for how the tables are read.
"""

from enum import StrEnum

from coordinator.protocols.phased import Outcome, PhasedProtocol, Reaction, Step
from ledger.decide import Move


class Phase(StrEnum):
    BEGINNING = "beginning"
    TRYING = "trying"
    CONFIRMING = "confirming"
    CANCELLING = "cancelling"
    # The ends.
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    ACCEPTED = "accepted"
    TRIED = "tried"
    REFUSED = "refused"
    EXPIRED = "expired"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"


class Call(StrEnum):
    TRY = "try"
    CONFIRM = "confirm"
    CANCEL = "cancel"


class State(StrEnum):
    """The destination's part of a transfer, on its shard."""

    ABSENT = "absent"
    TRIED = "tried"
    REFUSED = "refused"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"


_P, _E, _C, _S = Phase, Event, Call, State

PHASES: dict[tuple[StrEnum, StrEnum], Step] = {
    (_P.BEGINNING, _E.ACCEPTED): Step(_P.TRYING, Move.RESERVE, _C.TRY),
    (_P.TRYING, _E.TRIED): Step(_P.CONFIRMING, Move.PAY, _C.CONFIRM, Outcome.COMMITTED),
    (_P.TRYING, _E.REFUSED): Step(_P.CANCELLED, Move.RELEASE, None, Outcome.REJECTED),
    # Its time is over, or whoever tried it is gone: nothing is recorded, it may be sent again.
    (_P.TRYING, _E.EXPIRED): Step(_P.CANCELLING, Move.RELEASE, _C.CANCEL),
    (_P.CONFIRMING, _E.CONFIRMED): Step(_P.CONFIRMED, None, None),
    (_P.CANCELLING, _E.CANCELLED): Step(_P.CANCELLED, None, None),
}

CALLS: dict[tuple[StrEnum, StrEnum], Reaction] = {
    (_S.ABSENT, _C.TRY): Reaction(_S.TRIED, Move.EXPECT, _E.TRIED),
    (_S.TRIED, _C.TRY): Reaction(_S.TRIED, None, _E.TRIED),
    (_S.REFUSED, _C.TRY): Reaction(_S.REFUSED, None, _E.REFUSED),
    (_S.CONFIRMED, _C.TRY): Reaction(_S.CONFIRMED, None, _E.TRIED),
    # A try that was delayed behind its cancel reserves nothing: nobody would release it.
    (_S.CANCELLED, _C.TRY): Reaction(_S.CANCELLED, None, _E.EXPIRED),
    (_S.TRIED, _C.CONFIRM): Reaction(_S.CONFIRMED, Move.RECEIVE, _E.CONFIRMED),
    (_S.CONFIRMED, _C.CONFIRM): Reaction(_S.CONFIRMED, None, _E.CONFIRMED),
    (_S.TRIED, _C.CANCEL): Reaction(_S.CANCELLED, Move.EXPECT_NO_MORE, _E.CANCELLED),
    # It was not tried, or its try is still on its way: the row keeps that one out.
    (_S.ABSENT, _C.CANCEL): Reaction(_S.CANCELLED, None, _E.CANCELLED),
    (_S.CANCELLED, _C.CANCEL): Reaction(_S.CANCELLED, None, _E.CANCELLED),
    (_S.REFUSED, _C.CANCEL): Reaction(_S.REFUSED, None, _E.CANCELLED),
}

TCC = PhasedProtocol(
    name="tcc",
    phases=PHASES,
    calls=CALLS,
    begin=Phase.BEGINNING,
    accepted=Event.ACCEPTED,
    absent=State.ABSENT,
    refused=Reaction(State.REFUSED, None, Event.REFUSED),
    by_itself={},
    orphaned={Phase.TRYING: Event.EXPIRED},
    final=frozenset({Phase.CONFIRMED, Phase.CANCELLED}),
    undecided=frozenset({Phase.TRYING}),
    arrived=State.CONFIRMED,
    whole={Phase.CONFIRMING: Move.RECEIVE},
    source_states={
        Phase.TRYING: "reserved",
        Phase.CONFIRMING: "paid",
        Phase.CANCELLING: "released",
    },
)
