"""What must hold of an account at every moment: the invariants, as pure functions.

Each gives the ways in which it is violated, as (rule, detail). What must hold of a transfer is in
`transfer_audit.py`.
"""

from collections.abc import Iterable, Iterator
from itertools import chain as one_after_the_other
from itertools import pairwise
from typing import NamedTuple

from ledger.chain import first_link, next_link
from ledger.model import Account, Entry

Violation = tuple[str, str]


class Checked(NamedTuple):
    """An entry, the balance that the amounts up to it come to, and what is wrong with it."""

    entry: Entry
    total: int
    violations: list[Violation]


# --- one account ----------------------------------------------------------------------------


def check_history(account: Account, entries: Iterable[Entry]) -> Iterator[Violation]:
    """An account is what its entries say: numbered without gaps, in time order, each balance the
    one before plus the amount, never beyond the limit, each as it was written, and the last one's
    balance and chain the account's.
    """
    before = opening(account)
    for entry, after in _with_next(entries):
        if not _follows(account, before, entry):
            yield from _violations(account, before, entry, after)
            entry = _as_written(account, before, entry, after)
        before = entry
    yield from check_end(account, before)


def recompute(account: Account, entries: Iterable[Entry]) -> Iterator[Checked]:
    """The same for people, entry by entry; `check_end` has what there is to say at the end."""
    before, total = opening(account), 0
    for entry, after in _with_next(entries):
        total += entry.amount
        is_right = _follows(account, before, entry)
        found = [] if is_right else _violations(account, before, entry, after)
        yield Checked(entry, total, found)
        before = entry if is_right else _as_written(account, before, entry, after)


def opening(account: Account) -> Entry:
    """What stands before an account's first entry."""
    return Entry(account.id, 0, "", 0, 0, "", 0, first_link(account.id, account.currency))


def check_end(account: Account, last: Entry) -> list[Violation]:
    """The account's row says what its last entry says."""
    found = []
    if account.balance != last.balance:
        detail = f"the account has {account.balance}, its entries come to {last.balance}"
        found.append(("balance-is-sum-of-entries", detail))
    if account.entry_count != last.number:
        detail = f"the account counts {account.entry_count} entries, the last one is {last.number}"
        found.append(("entry-count", detail))
    if account.chain != last.chain:
        detail = f"the account's chain is not the one after entry {last.number}, its last one"
        found.append(("account-ends-its-chain", detail))
    return found


def _with_next(entries: Iterable[Entry]) -> Iterator[tuple[Entry, Entry | None]]:
    """Each entry and the one after it."""
    return pairwise(one_after_the_other(entries, (None,)))  # type: ignore[arg-type]


def _follows(account: Account, before: Entry, entry: Entry) -> bool:
    return (
        entry.number == before.number + 1
        and entry.balance == before.balance + entry.amount
        and entry.stamp >= before.stamp
        and entry.chain == _link(before, entry)
        and (entry.amount >= 0 or entry.balance >= account.lowest_balance)
    )


def _link(before: Entry, entry: Entry) -> str:
    """What the chain of an entry must be."""
    return next_link(before.chain, *entry[:-1])


def _violations(
    account: Account, before: Entry, entry: Entry, after: Entry | None
) -> list[Violation]:
    """All that is wrong with an entry; `after` is the one behind it."""
    number, found = entry.number, []
    if number > before.number + 1:
        missing = f"entry {before.number + 1} is missing: {number} follows"
        found.append(("entries-without-gaps", missing))
    elif number <= before.number:
        found.append(("entries-without-gaps", f"entry {number} comes after {before.number}"))
    if entry.balance != before.balance + entry.amount:
        detail = (
            f"entry {number}: {before.balance} and {entry.amount} make "
            f"{before.balance + entry.amount}, it says {entry.balance}"
        )
        found.append(("balance-after-entry", detail))
    if entry.stamp < before.stamp:
        found.append(("entries-in-time-order", f"entry {number} is before the last one"))
    # Behind a gap nothing can be said: the chain before it is missing.
    if number == before.number + 1 and entry.chain != _link(before, entry):
        changed = _what_changed(account, before, entry, after)
        found.append(("entry-as-written", f"entry {number}: {changed}"))
    if entry.balance < account.lowest_balance and entry.amount < 0:
        detail = f"entry {number} leaves {entry.balance}, below {account.lowest_balance}"
        found.append(("overdraft-limit", detail))
    return found


def _what_changed(account: Account, before: Entry, entry: Entry, after: Entry | None) -> str:
    """What an entry was, where its chain proves it; otherwise what the chain leaves open."""
    balance = after.balance - after.amount if after else account.balance
    for guess in (
        entry._replace(amount=entry.balance - before.balance),
        entry._replace(balance=before.balance + entry.amount),
        entry._replace(balance=balance, amount=balance - before.balance),
        entry._replace(number=entry.number - 1),
        entry._replace(number=entry.number + 1),
    ):
        if _link(before, guess) == entry.chain:
            return ", ".join(
                f"its {field} was {was} and now is {now}"
                for field, was, now in zip(entry._fields, guess, entry, strict=True)
                if was != now
            )
    if after and after.chain == _link(before, after._replace(number=entry.number)):
        # The one behind it belongs here.
        if entry.chain == _link(after, entry._replace(number=entry.number + 1)):
            return f"it has changed places with entry {after.number}"
        return f"it was put in; entry {after.number} stood in its place"
    if entry.number > account.entry_count:
        return f"it was put in behind the account's last entry, {account.entry_count}"
    if _as_written(account, before, entry, after) != entry:
        return "its chain was changed, and nothing else"
    if _leads_on(account, entry, after):
        return "its transfer, counterparty or stamp was changed"
    return f"it is not the one that was written after entry {before.number}"


def _leads_on(account: Account, entry: Entry, after: Entry | None) -> bool:
    """Whether what comes next was written after this entry's chain."""
    if after is None:
        return account.chain == entry.chain
    return after.chain == _link(entry, after)


def _as_written(account: Account, before: Entry, entry: Entry, after: Entry | None) -> Entry:
    """The entry with the chain that it must have had, if what comes next rests on that one."""
    mended = entry._replace(chain=_link(before, entry))
    return mended if _leads_on(account, mended, after) else entry


# --- what is reserved -----------------------------------------------------------------------


def check_holdings(account: Account, reserved: int, tried: int) -> list[Violation]:
    """What an account holds is what its unfinished transfers have `reserved`, and what it expects
    is what was `tried` on it; neither is below zero, and what is held is there.

    All of this stands on one shard and changes in one local transaction: it holds at every moment.
    """
    found = []
    for name, value in (("held", account.held), ("expected", account.expected)):
        if value < 0:
            found.append(("held-not-negative", f"{value} is {name}"))
    if account.held != reserved:
        detail = f"the account holds {account.held}, its transfers that are trying {reserved}"
        found.append(("held-as-phases-say", detail))
    if account.expected != tried:
        detail = f"the account expects {account.expected}, the steps that are tried {tried}"
        found.append(("expected-as-steps-say", detail))
    if account.available < account.lowest_balance:
        detail = (
            f"{account.balance} without {account.held} held is {account.available}, below "
            f"{account.lowest_balance}"
        )
        found.append(("held-within-limit", detail))
    return found
