"""What becomes of a transfer by TC/C or Saga that is not finished, in words for operators: pure.

A protocol says what is to be done in a phase; this says what that means for the money, who does it,
and on which shard.
"""

from enum import StrEnum
from typing import NamedTuple

from coordinator.protocols import saga, try_confirm_cancel


class Side(StrEnum):
    """On whose shard the next step is."""

    SOURCE = "source"
    DESTINATION = "destination"


class Explanation(NamedTuple):
    """Of one phase: what has become of the money so far, and what is done next, as a verb with what
    follows, on an account of which side.
    """

    money: str
    action: str
    side: Side


EXPLANATIONS: dict[StrEnum, Explanation] = {
    try_confirm_cancel.Phase.TRYING: Explanation(
        "nothing has happened, the amount is reserved on its source",
        "cancels it {when}: what is reserved on {shard} is released, and the same key may be sent "
        "again",
        Side.SOURCE,
    ),
    try_confirm_cancel.Phase.CONFIRMING: Explanation(
        "it has happened, and has not arrived",
        "goes forward {when}: it is confirmed to account {account} on {shard} until that is "
        "answered",
        Side.DESTINATION,
    ),
    try_confirm_cancel.Phase.CANCELLING: Explanation(
        "nothing has happened, and its source is free again",
        "goes on {when}: it is cancelled on {shard}, for account {account}, until that is answered",
        Side.DESTINATION,
    ),
    saga.Phase.CREDITING: Explanation(
        "its source is debited, and it has not arrived",
        "goes forward {when}: the credit to account {account} on {shard} is repeated until it is "
        "answered",
        Side.DESTINATION,
    ),
    saga.Phase.COMPENSATING: Explanation(
        "it is refused, and its source has not got the amount back",
        "goes backward {when}: the refund to account {account} on {shard} is repeated until it "
        "succeeds",
        Side.SOURCE,
    ),
}


class NextStep(NamedTuple):
    """What stands between a transfer and its next step: the account and the shard of that step, who
    is to make it, when, and what is known to be in the way.

    `turn` says why it is their turn; `away` why the shard cannot be used, and `blocked_by` what a
    try has met.
    """

    account: str
    shard: str
    actor: str
    turn: str
    in_s: float
    away: str | None
    blocked_by: str | None


def in_words(phase: StrEnum, step: NextStep) -> str:
    """All of it in one sentence."""
    explanation = EXPLANATIONS[phase]
    when = f"in {step.in_s:.0f} s" if step.in_s >= 1 else "now"
    action = explanation.action.format(account=step.account, shard=step.shard, when=when)
    text = f"{explanation.money}; {step.turn}; {step.actor} {action}"
    if step.away:
        return f"{text}; it waits for {step.shard} ({step.away}); bring {step.shard} back"
    if step.blocked_by:
        return f"{text}; the last try failed: {step.blocked_by}"
    return text
