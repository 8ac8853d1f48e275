"""What the figures of a run say, in sentences: made from the figures alone. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from lab.report import money, seconds_text, share_text
from lab.result import Outcome
from lab.ways import WAYS

# Differences up to this share are not called differences: a second run may turn them round.
CLOSE = 0.1


def joined(parts: Sequence[str], word: str = "and") -> str:
    """`a, b and c`."""
    return (
        f" {word} ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
    )


def about_groups() -> list[str]:
    """What event sourcing does not share with the ways that run on two shards."""
    return [
        "Event sourcing runs as one ledger group, so both accounts of a transfer are always in one "
        "place. The other ways make two shards agree, and their figures contain that; its figures "
        "contain nothing of the kind. It moves money between the same accounts.",
        "Where one of two shards is away or slow for the others, its only node is, at the same "
        "times; after each slow one its read side is killed too, which the others do not have.",
        "Whoever reads its read side by itself names the last moment that it was told, and is told "
        "nothing earlier. One that does not can see an earlier moment while the read side begins "
        "anew.",
        "No likeness: one of two shards away while the other goes on; a coordinator that dies "
        "between the steps on two shards, which leaves something in doubt; locks and how long they "
        "are held; a sum that is off while money is between two shards.",
    ]


def about_rates(outcomes: Sequence[Outcome]) -> list[str]:
    """Under the plot of throughput."""
    figures = joined([f"{o.title} {o.rate:,.0f}" for o in outcomes])
    gaps = joined([f"{o.title} {seconds_text(o.gap_s)}" for o in outcomes])
    return [
        f"Transfers committed in a second, over the whole time with its faults: {figures}.",
        f"The longest time in which no transfer at all was committed: {gaps}. While a shard is "
        "away no way can pay across shards, nor a group without its node; what counts is how soon "
        "it goes on.",
    ]


def about_latency(outcomes: Sequence[Outcome]) -> list[str]:
    """Under the plot of latencies."""
    halves = joined([f"{o.title} {seconds_text(o.latency.p50)}" for o in outcomes])
    late = joined([f"{o.title} {seconds_text(o.latency.p99)}" for o in outcomes])
    told = [
        "What a client waits, with all that it had to send again. Half of the transfers took no "
        f"longer than: {halves}. 99 of 100 no longer than: {late}."
    ]
    held = [(o.title, o.locks) for o in outcomes if o.locks]
    if held:
        locks = joined([f"{t} {seconds_text(k.p50)} and {seconds_text(k.p99)}" for t, k in held])
        told.append(
            "A shard's locks were held for no longer than this, in half of the cases and in 99 of "
            f"100: {locks}. Whoever wants one of these accounts waits for as long."
        )
    return told


def about_sums(outcomes: Sequence[Outcome]) -> list[str]:
    """Under the plot of the sum of all balances."""
    return [_about_sum(outcome) for outcome in outcomes]


def about_closer_sums() -> list[str]:
    """Under the same plot of those whose sum came right again."""
    return [
        "The same, each in a scale of its own. What is off here is money on its way: taken from "
        "one shard, and not given to the other yet. Who adds up what the shards hold meets it."
    ]


def _about_sum(outcome: Outcome) -> str:
    plain, verdict = outcome.plain, outcome.verdict
    what = "its read side" if WAYS[outcome.way].is_group else "each shard"
    text = f"{outcome.title}: who reads {what} by itself "
    if plain.wrong_share:
        text += (
            f"saw a wrong sum for {share_text(plain.wrong_share)} of the time, at the longest for "
            f"{seconds_text(plain.longest_s)}, with up to {money(plain.missing_most)} missing."
        )
    else:
        text += "never saw a wrong sum."
    if outcome.service and outcome.service.reads > outcome.service.unanswered:
        text += f" The service's own read of all balances {_when(outcome.service.wrong_share)}."
    if plain.wrong_since_s is not None:
        text += f" From second {plain.wrong_since_s:.1f} on it was never right again."
    if verdict.lost > 0:
        gone = f"{money(verdict.lost)} of {money(verdict.before)}"
        return f"{text} In the end {gone} are gone, for ever."
    if verdict.lost < 0:
        return f"{text} In the end there are {money(-verdict.lost)} that nobody has paid in."
    return f"{text} In the end the sum is right."


def _when(wrong_share: float) -> str:
    return f"was wrong for {share_text(wrong_share)} of it" if wrong_share else "was never wrong"


def about_books(outcomes: Sequence[Outcome]) -> list[str]:
    """Under the table: what was lost or doubled."""
    return [_about_book(outcome) for outcome in outcomes]


def _about_book(outcome: Outcome) -> str:
    verdict = outcome.verdict
    if outcome.is_right:
        return (
            f"{outcome.title}: every one of the {outcome.committed:,} transfers that were answered "
            "as committed is in the books once, and every account holds what the answers add up to."
        )
    parts = []
    if verdict.accounts_wrong:
        parts.append(
            f"{verdict.accounts_wrong:,} accounts do not hold what the answers add up to: "
            f"{money(verdict.too_little)} too little, {money(verdict.too_much)} too much"
        )
    named = {
        "lost": verdict.missing,
        "doubled": verdict.doubled,
        "done by half": verdict.torn,
        "done though refused": verdict.unasked,
    }
    parts += [f"{count:,} transfers are {name}" for name, count in named.items() if count]
    if outcome.violations:
        parts.append(f"violations that the audit names: {len(outcome.violations):,}")
    return f"{outcome.title}: {joined(parts)}."


def when_to_take_which(outcomes: Sequence[Outcome]) -> list[str]:
    """Sentences for a team that has to choose."""
    told = [_is_out(outcome) for outcome in outcomes if not outcome.is_right]
    right = [outcome for outcome in outcomes if outcome.is_right]
    if not right:
        return [*told, "None of the ways that ran kept every cent: there is nothing to recommend."]
    if len(right) == 1:
        (only,) = right
        return [
            *told,
            f"{only.title} kept every cent: {only.rate:,.0f} transfers/s, 99 of 100 within "
            f"{seconds_text(only.latency.p99)}. It is the only such way that ran, so it is "
            "compared with none.",
        ]
    told.append(
        f"{joined([o.title for o in right])} kept every cent, so the choice is about the rest."
    )
    told += [_best(wish, right) for wish in WISHES if sum(map(wish.is_measured, right)) > 1]
    return told


def _is_out(outcome: Outcome) -> str:
    verdict = outcome.verdict
    if verdict.lost > 0:
        what = f"{money(verdict.lost)} are gone"
    elif verdict.accounts_wrong:
        what = f"{verdict.accounts_wrong:,} of its accounts are wrong"
    else:
        what = "its books are not right"
    return (
        f"{outcome.title} is not to be taken for money: after {len(outcome.faults)} faults "
        f"{what}, and its {outcome.rate:,.0f} transfers/s do not make up for that."
    )


class Wish(NamedTuple):
    """What a team may want most, and by which figure it is seen."""

    text: str
    measure: str
    # The less, the better.
    cost: Callable[[Outcome], float]
    figure: Callable[[Outcome], str]
    is_measured: Callable[[Outcome], bool] = lambda outcome: True
    # Of those of which it is not measured.
    otherwise: str = ""


WISHES = (
    Wish(
        "throughput counts most",
        "Transfers in a second",
        lambda o: -o.rate,
        lambda o: f"{o.rate:,.0f}",
    ),
    Wish(
        "the slowest answers count most",
        "99 of 100 answered within",
        lambda o: o.latency.p99,
        lambda o: seconds_text(o.latency.p99),
    ),
    Wish(
        "many transfers want the same accounts",
        "Locks held, in 99 of 100 cases at most",
        lambda o: o.locks.p99 if o.locks else 0.0,
        lambda o: seconds_text(o.locks.p99) if o.locks else "",
        lambda o: o.locks is not None,
        "takes no locks",
    ),
    Wish(
        "other programs read the shards by themselves and should not see money missing",
        "A wrong sum, of the time",
        lambda o: o.plain.wrong_share,
        lambda o: share_text(o.plain.wrong_share),
    ),
    Wish(
        "it has to go on soon after a fault",
        "Longest time without a committed transfer",
        lambda o: o.gap_s,
        lambda o: seconds_text(o.gap_s),
    ),
)


def _best(wish: Wish, outcomes: Sequence[Outcome]) -> str:
    """What to take for a wish; ways that are close to the best are named with it."""
    ranked = sorted(filter(wish.is_measured, outcomes), key=wish.cost)
    costs = [wish.cost(outcome) for outcome in ranked]
    room = CLOSE * max(map(abs, costs))
    near = [o.title for o, cost in zip(ranked, costs, strict=True) if cost - costs[0] <= room]
    best = joined(near, "or") if len(near) < len(ranked) else "no clear difference in this run"
    figures = ", ".join(f"{outcome.title} {wish.figure(outcome)}" for outcome in ranked)
    others = [f"{o.title} {wish.otherwise}" for o in outcomes if not wish.is_measured(o)]
    if others:
        best = f"{joined(others)}; of the others {best}"
    return f"If {wish.text}: {best}. {wish.measure}: {figures}."
