"""What the figures of a run say, in sentences: made from the figures alone. Pure."""

from collections.abc import Callable, Sequence

from tandem.lab.report import money, seconds_text, share_text
from tandem.lab.result import Outcome

# Differences up to this share are not called differences: a second run may turn them round.
CLOSE = 0.1


def joined(parts: Sequence[str], word: str = "and") -> str:
    """`a, b and c`."""
    return (
        f" {word} ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
    )


def about_rates(outcomes: Sequence[Outcome]) -> str:
    """Under the plot of throughput."""
    figures = joined([f"{o.title} {o.rate:,.0f}" for o in outcomes])
    gaps = joined([f"{seconds_text(o.gap_s)} ({o.title})" for o in outcomes])
    return (
        f"Transfers committed in a second, over the whole time with its faults: {figures}. "
        f"The longest time in which no transfer at all was committed: {gaps}. While a shard is "
        "away no way can pay across shards; what counts is how soon it goes on."
    )


def about_latency(outcomes: Sequence[Outcome]) -> str:
    """Under the plot of latencies."""
    halves = joined([f"{seconds_text(o.latency.p50)} ({o.title})" for o in outcomes])
    late = joined([f"{seconds_text(o.latency.p99)} ({o.title})" for o in outcomes])
    held = [o for o in outcomes if o.locks]
    text = (
        "What a client waits, with all that it had to send again. "
        f"Half of the transfers took no longer than {halves}; 99 of 100 no longer than {late}."
    )
    if held:
        locks = joined(
            [
                f"{seconds_text(o.locks.p50)} and {seconds_text(o.locks.p99)} ({o.title})"
                for o in held
                if o.locks
            ]
        )
        text += (
            " A shard's locks were held for no longer than this, in half of the cases and in 99 of "
            f"100: {locks}. Whoever wants one of these accounts waits for as long."
        )
    return text


def about_sums(outcomes: Sequence[Outcome]) -> str:
    """Under the plot of the sum of all balances."""
    return " ".join(_about_sum(outcome) for outcome in outcomes)


def _about_sum(outcome: Outcome) -> str:
    plain, verdict = outcome.plain, outcome.verdict
    text = (
        f"{outcome.title}: who reads each shard by itself saw a wrong sum for "
        f"{share_text(plain.wrong_share)} of the time, at the longest for "
        f"{seconds_text(plain.longest_s)}, with up to {money(plain.missing_most)} missing."
    )
    if outcome.service and outcome.service.reads > outcome.service.unanswered:
        text += (
            " The service's own read of all balances saw it wrong for "
            f"{share_text(outcome.service.wrong_share)} of the time."
        )
    if plain.wrong_since_s is not None:
        text += f" From second {plain.wrong_since_s:.1f} on it was never right again."
    if verdict.lost > 0:
        gone = f"{money(verdict.lost)} of {money(verdict.before)}"
        return f"{text} In the end {gone} are gone, for ever."
    if verdict.lost < 0:
        return f"{text} In the end there are {money(-verdict.lost)} that nobody has paid in."
    return f"{text} In the end the sum is right."


def about_books(outcomes: Sequence[Outcome]) -> str:
    """Under the table: what was lost or doubled."""
    return " ".join(_about_book(outcome) for outcome in outcomes)


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
        parts.append(f"the audit names {len(outcome.violations):,} violations")
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
    told.append(_best("throughput counts most", right, lambda o: -o.rate, _rate))
    told.append(_best("the slowest answers count most", right, lambda o: o.latency.p99, _p99))
    if all(outcome.locks for outcome in right):
        told.append(_best("many transfers want the same account", right, _locked, _locks))
    told.append(
        _best(
            "other programs read the shards directly and must not see money missing",
            right,
            lambda o: o.plain.wrong_share,
            lambda o: f"a wrong sum for {share_text(o.plain.wrong_share)} of the time",
        )
    )
    told.append(
        _best(
            "going on soon after a crash counts most",
            right,
            lambda o: o.gap_s,
            lambda o: f"at most {seconds_text(o.gap_s)} without a committed transfer",
        )
    )
    return told


def _is_out(outcome: Outcome) -> str:
    verdict = outcome.verdict
    what = (
        f"{money(verdict.lost)} are gone"
        if verdict.lost > 0
        else f"{verdict.accounts_wrong:,} accounts are wrong"
    )
    return (
        f"{outcome.title} is not to be taken for money: after {len(outcome.faults)} faults "
        f"{what}, and its {outcome.rate:,.0f} transfers/s do not make up for that."
    )


def _best(
    wish: str,
    outcomes: Sequence[Outcome],
    cost: Callable[[Outcome], float],
    figure: Callable[[Outcome], str],
) -> str:
    """What to take for a wish; ways that are close to the best are named with it."""
    ranked = sorted(outcomes, key=cost)
    least, most = cost(ranked[0]), cost(ranked[-1])
    room = CLOSE * max(abs(least), abs(most))
    near = [outcome for outcome in ranked if cost(outcome) - least <= room]
    rest = [outcome for outcome in ranked if outcome not in near]
    figures = joined([f"{outcome.title} {figure(outcome)}" for outcome in near])
    if not rest:
        return f"If {wish}: no clear difference here ({figures})."
    others = joined([f"{outcome.title} {figure(outcome)}" for outcome in rest])
    return f"If {wish}: {joined([o.title for o in near], 'or')} ({figures}; {others})."


def _rate(outcome: Outcome) -> str:
    return f"{outcome.rate:,.0f} transfers/s"


def _p99(outcome: Outcome) -> str:
    return f"99 of 100 within {seconds_text(outcome.latency.p99)}"


def _locked(outcome: Outcome) -> float:
    return outcome.locks.p99 if outcome.locks else 0.0


def _locks(outcome: Outcome) -> str:
    return f"locks held for {seconds_text(_locked(outcome))} in 99 of 100 cases"
