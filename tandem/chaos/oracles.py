"""The ways to be wrong, by name, and how each is seen. Pure: values in, violations out.

After jepsen's bank checker, which names what it finds (jepsen/src/jepsen/tests/bank.clj).
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from ledger.model import Account
from tandem.chaos.history import Attempt, Order, Told, Via

# Every violation has one of these names, or "audit: " and the name of a rule of the audit.
WAYS = {
    "total-changed": "the balances of one snapshot do not add up to what was paid in",
    "negative-balance": "an account that may not is below zero",
    "definite-error-took-effect": "what was answered with a definite error has happened all the "
    "same",
    "acknowledged-is-lost": "what was acknowledged is not there, or has another outcome",
    "key-has-two-effects": "one key has moved money more than once",
    "half-a-transfer": "a transfer has one of its two entries, or other entries than its own",
    "status-went-backwards": "a transfer that had its outcome has none any more",
    "refusal-changed-something": "a refused transfer has moved money",
    "answer-changed": "the same question was answered differently",
    "books-do-not-agree": "a balance is not what its entries add up to",
    "in-doubt-left": "something is in doubt long after everything was healed",
    "locked-left": "an account cannot be paid from or to after everything was healed",
    "prepared-not-in-view": "XA RECOVER or a phase table lists what the in-doubt view does not",
    "loss-not-noticed": "a decided branch was taken away by hand, and no coordinator says so",
    "time-ahead": "an entry carries a time that has not come yet",
    "hostile-request-taken": "a request that is to be refused was carried out",
    "refusal-is-our-fault": "a request that is to be refused was answered as a fault of ours",
    "list-does-not-hold": "a ledger group's list is damaged, or decided differently when replayed",
    "read-side-differs": "a ledger group's read side does not tell what its list comes to",
    "does-not-come-back": "a part is not ready long after it was started or thawed",
    "ended-by-itself": "a process has ended that nobody had ended",
}


# What clocks may be apart that nobody has turned.
CLOCKS_APART = timedelta(seconds=30)


class Violation(NamedTuple):
    """Something that must not be: which way, of what, and the evidence."""

    way: str
    subject: str
    detail: str


# --- at any time ------------------------------------------------------------------------------


def check_balances(balances: Mapping[str, int], total: int, when: str) -> list[Violation]:
    """Balances that were read at one moment."""
    found = []
    if (summed := sum(balances.values())) != total:
        found.append(Violation("total-changed", when, f"{summed}, not {total}: {dict(balances)}"))
    found += [
        Violation("negative-balance", account, f"{balance} {when}")
        for account, balance in balances.items()
        if balance < 0
    ]
    return found


def check_attempt(earlier: Sequence[Attempt], new: Attempt) -> list[Violation]:
    """An answer beside the earlier ones of its key; what was under way at the same time as another
    may have been first or second.
    """
    found = []
    for other in earlier:
        if other.ended <= new.began:
            found += _compare(other, new)
        elif new.ended <= other.began:
            found += _compare(new, other)
        elif other.told.is_final and new.told.is_final:
            found += _compare(other, new)
    # One is enough to tell what is wrong.
    return found[:1]


def _compare(before: Attempt, after: Attempt) -> list[Violation]:
    """What an answer after a final one may not be."""
    if not before.told.is_final:
        return []
    evidence = f"{before}; then {after}"
    if after.via is Via.GET and after.told is Told.PENDING:
        return [Violation("status-went-backwards", after.order.id, evidence)]
    if after.told is Told.ABSENT:
        return [Violation("acknowledged-is-lost", after.order.id, evidence)]
    if not after.told.is_final:
        return []
    if before.told is not after.told:
        is_loss = before.told is Told.COMMITTED
        way = "acknowledged-is-lost" if is_loss else "definite-error-took-effect"
        return [Violation(way, after.order.id, evidence)]
    if before.reason != after.reason or _differ(before, after):
        bodies = f"{before.body} and {after.body}"
        return [Violation("answer-changed", after.order.id, f"{evidence}: {bodies}")]
    return []


def _differ(one: Attempt, other: Attempt) -> bool:
    """Whether two answers with the same outcome tell the transfer differently."""
    if one.body is None or other.body is None:
        return False
    # A refusal is a problem document from POST and a view from GET; what is committed is a view.
    is_comparable = one.via is other.via or one.told is Told.COMMITTED
    return is_comparable and dict(one.body) != dict(other.body)


def check_in_view(
    before: Collection[tuple[str, str]],
    view: Collection[tuple[str, str]],
    after: Collection[tuple[str, str]],
    unreachable: Collection[str],
) -> list[Violation]:
    """What is prepared, as (gtrid, shard), before the in-doubt view was asked for and after it,
    must be in it, unless the view says that it could not look there.
    """
    return [
        Violation("prepared-not-in-view", gtrid, f"on {shard}; the view has {len(view)} branches")
        for gtrid, shard in sorted(set(before) & set(after) - set(view))
        if shard not in unreachable
    ]


def check_loss(gtrid: str, shard: str, logs: Mapping[str, str]) -> list[Violation]:
    """A branch of a committed group is gone from its shard: some coordinator's log must name it."""
    if any(
        gtrid in line and f"shard {shard}" in line and "CRITICAL" in line
        for log in logs.values()
        for line in log.splitlines()
    ):
        return []
    return [Violation("loss-not-noticed", gtrid, f"its branch on {shard} was rolled back by hand")]


def check_hostile(name: str, status: int, answer: bytes) -> list[Violation]:
    """The answer to a request that is to be refused. None at all is none, too: its coordinator may
    have been killed, or hangs up on what is no HTTP.
    """
    shown = answer[:1000].decode(errors="replace")
    if b'"committed"' in answer or b'"pending"' in answer:
        return [Violation("hostile-request-taken", name, shown)]
    if status >= 500 and status != 503:
        return [Violation("refusal-is-our-fault", name, shown)]
    return []


# --- when everything is healed ----------------------------------------------------------------


def check_looked(attempts: Sequence[Attempt], looked: Attempt) -> list[Violation]:
    """What GET says of a key after everything is healed and settled, before the key is sent again.

    `attempts` are those of the clients, before this look.
    """
    if looked.told is Told.PENDING:
        return [Violation("in-doubt-left", looked.order.id, str(looked))]
    if looked.told is Told.UNKNOWN:
        return [Violation("locked-left", looked.order.id, f"it cannot be looked at: {looked}")]
    writes = [attempt for attempt in attempts if attempt.via is not Via.GET]
    is_nothing = all(attempt.told is Told.NOTHING for attempt in writes)
    if looked.told.is_final and is_nothing:
        evidence = "; ".join(map(str, [*attempts, looked]))
        return [Violation("definite-error-took-effect", looked.order.id, evidence)]
    return []


def check_resent(resent: Attempt) -> list[Violation]:
    """A key that was sent again, with patience, when everything was healed, has its outcome."""
    if resent.told.is_final:
        return []
    return [Violation("locked-left", resent.order.id, f"no outcome with patience: {resent}")]


def check_times(account: str, times: Iterable[datetime], now: datetime) -> list[Violation]:
    """No entry is later than now, however the clocks of coordinators have jumped."""
    ahead = max((time for time in times if time > now + CLOCKS_APART), default=None)
    return [Violation("time-ahead", account, f"{ahead} at {now}")] if ahead else []


class Line(NamedTuple):
    """One entry of an account's statement."""

    transfer: str
    account: str
    amount: int
    counterparty: str


def check_effects(
    outcomes: Mapping[Order, Told], lines: Iterable[Line], known: Collection[str] = ()
) -> list[Violation]:
    """Committed transfers have their two entries and no other has any; `known` are the ids of
    transfers that are not the clients'.
    """
    by_transfer: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_transfer[line.transfer].append(line)
    found = []
    for order, told in outcomes.items():
        found += _check_effect(order, told, by_transfer.pop(order.id, []))
    found += [
        Violation("half-a-transfer", transfer, f"nobody has asked for it: {some}")
        for transfer, some in by_transfer.items()
        if transfer not in known
    ]
    return found


def _check_effect(order: Order, told: Told, lines: list[Line]) -> list[Violation]:
    wanted = Counter(
        [
            Line(order.id, order.source, -order.amount, order.destination),
            Line(order.id, order.destination, order.amount, order.source),
        ]
    )
    found = Counter(lines)
    evidence = f"key {order.key} is {told.value} and has the entries {lines}"
    if told is not Told.COMMITTED:
        way = "refusal-changed-something"
        is_whole = not found or (order.protocol == "saga" and found == _compensated(order))
        return [] if is_whole else [Violation(way, order.id, evidence)]
    if found == wanted:
        return []
    if not found:
        return [Violation("acknowledged-is-lost", order.id, evidence)]
    is_repeated = found.keys() <= wanted.keys() and max(found.values()) > 1
    way = "key-has-two-effects" if is_repeated else "half-a-transfer"
    return [Violation(way, order.id, evidence)]


def _compensated(order: Order) -> Counter[Line]:
    """What a Saga leaves that was refused: the money has left its account and has come back."""
    return Counter(
        Line(order.id, order.source, amount, order.destination)
        for amount in (-order.amount, order.amount)
    )


def check_books(balances: Mapping[str, int], lines: Iterable[Line]) -> list[Violation]:
    """A balance is the sum of its account's entries."""
    sums: Counter[str] = Counter()
    for line in lines:
        sums[line.account] += line.amount
    return [
        Violation("books-do-not-agree", account, f"{balance}, its entries give {sums[account]}")
        for account, balance in balances.items()
        if balance != sums[account]
    ]


def broken_list(shard: str, why: str) -> Violation:
    """A ledger group's list that cannot be replayed to the same outcomes."""
    return Violation("list-does-not-hold", shard, why)


def check_told(
    shard: str, wanted: Mapping[str, Account], told: Mapping[str, Account]
) -> list[Violation]:
    """What a read side tells of a group's accounts, beside those that its list comes to; the chains
    are the read side's alone.
    """
    return [
        Violation("read-side-differs", id_, f"on {shard}: {told.get(id_)}, not {wanted.get(id_)}")
        for id_ in sorted({*wanted, *told})
        if _unchained(told.get(id_)) != _unchained(wanted.get(id_))
    ]


def _unchained(account: Account | None) -> Account | None:
    return account._replace(chain="") if account else None


def check_nothing_left(
    view: Collection[tuple[str, str]], prepared: Collection[tuple[str, str]], waited_s: float
) -> list[Violation]:
    """Nothing of ours is in doubt, by the view or by the shards themselves."""
    return [
        Violation("in-doubt-left", gtrid, f"on {shard}, {waited_s:.0f} s after the healing")
        for gtrid, shard in sorted({*view, *prepared})
    ]


def check_paid(account: str, direction: str, told: Told, evidence: str) -> list[Violation]:
    """A payment of 1 from or to an account that can afford it, when everything is healed."""
    if told is Told.COMMITTED:
        return []
    return [Violation("locked-left", account, f"it cannot be paid {direction}: {evidence}")]
