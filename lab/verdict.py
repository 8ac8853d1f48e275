"""What was lost or doubled: the books in the end, against what the clients were told. Pure."""

from collections.abc import Mapping, Sequence

from lab.result import Deal, Verdict

# What each transfer has put on each account: (transfer, account) -> amount.
Moved = Mapping[tuple[str, str], int]


def judge(
    before: Mapping[str, int],
    deals: Sequence[Deal],
    after: Mapping[str, int],
    moved: Moved | None,
) -> Verdict:
    """Compare. `moved` is None where no record of transfers is kept: balances alone tell then.

    A transfer without a clear answer may have happened or not, but as a whole and once.
    """
    happened = [deal for deal in deals if _has_happened(deal, moved)]
    expected = dict(before)
    for deal in happened:
        expected[deal.source] -= deal.amount
        expected[deal.destination] += deal.amount
    off = [after.get(account, 0) - amount for account, amount in expected.items()]
    return Verdict(
        before=sum(before.values()),
        after=sum(after.values()),
        accounts_wrong=sum(amount != 0 for amount in off),
        too_much=sum(amount for amount in off if amount > 0),
        too_little=-sum(amount for amount in off if amount < 0),
        **({} if moved is None else _counts(deals, moved)),
    )


def _effect(deal: Deal, moved: Moved) -> tuple[int, int]:
    """What it took from its source, and what it gave to its destination."""
    return -moved.get((deal.id, deal.source), 0), moved.get((deal.id, deal.destination), 0)


def _has_happened(deal: Deal, moved: Moved | None) -> bool:
    if deal.outcome != "unanswered" or moved is None:
        return deal.outcome == "committed"
    return _effect(deal, moved) == (deal.amount, deal.amount)


def _counts(deals: Sequence[Deal], moved: Moved) -> dict[str, int]:
    """How many transfers are wrong, by the way in which they are."""
    counts = dict.fromkeys(("missing", "doubled", "torn", "unasked"), 0)
    for deal in deals:
        taken, given = _effect(deal, moved)
        if taken != given:
            counts["torn"] += 1
        elif taken > deal.amount:
            counts["doubled"] += 1
        elif deal.outcome == "committed" and taken != deal.amount:
            counts["missing"] += 1
        elif deal.outcome == "rejected" and taken:
            counts["unasked"] += 1
    return counts
