"""What must hold of books that are closed for a moment: the invariants, as pure functions.

Each gives the ways in which it is violated, as (rule, detail); none is the empty list.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ledger.model import Account, Entry

Violation = tuple[str, str]


class Line(NamedTuple):
    """One entry as the audit of transfers needs it; `shard` is where it stands."""

    shard: str
    account: str
    amount: int
    counterparty: str
    stamp: int


class Record(NamedTuple):
    """One transfer's row as the audit of transfers needs it."""

    shard: str
    status: str
    source: str
    destination: str
    amount: int
    gtrid: str


def check_history(account: Account, entries: Iterable[Entry]) -> list[Violation]:
    """An account is what its entries say: numbered without gaps, in time order, each balance the
    one before plus the amount, never beyond the limit, and the last one the account's.
    """
    found: list[Violation] = []
    balance = count = 0
    stamp = 0
    for entry in entries:
        count += 1
        if entry.number != count:
            detail = f"entry {count} is missing: {entry.number} follows"
            found.append(("entries-without-gaps", detail))
            count = entry.number
        if entry.balance != balance + entry.amount:
            detail = (
                f"entry {entry.number}: {balance} and {entry.amount} make "
                f"{balance + entry.amount}, it says {entry.balance}"
            )
            found.append(("balance-after-entry", detail))
        if entry.stamp < stamp:
            found.append(("entries-in-time-order", f"entry {entry.number} is before the last one"))
        balance, stamp = entry.balance, entry.stamp
        if balance < account.lowest_balance and entry.amount < 0:
            detail = f"entry {entry.number} leaves {balance}, below {account.lowest_balance}"
            found.append(("overdraft-limit", detail))
    if account.balance != balance:
        detail = f"the account has {account.balance}, its entries come to {balance}"
        found.append(("balance-is-sum-of-entries", detail))
    if account.entry_count != count:
        detail = f"the account counts {account.entry_count} entries, there are {count}"
        found.append(("entry-count", detail))
    return found


def check_transfer(records: Sequence[Record], lines: Sequence[Line]) -> list[Violation]:
    """A transfer is there once, with both its entries if it is committed and none if it is not."""
    if not records:
        shards = ", ".join(sorted({line.shard for line in lines}))
        return [("entry-has-transfer", f"there are entries on {shards}, but no transfer")]
    if len(records) > 1:
        places = ", ".join(record.shard for record in records)
        return [("one-transfer-per-id", f"it stands {len(records)} times: on {places}")]
    record = records[0]
    wanted = []
    if record.status == "committed":
        wanted = [
            (record.source, -record.amount, record.destination),
            (record.destination, record.amount, record.source),
        ]
    found = [(line.account, line.amount, line.counterparty) for line in lines]
    if sorted(wanted) != sorted(found):
        detail = f"it is {record.status} with entries {found}, not {wanted}"
        return [("all-entries-or-none", detail)]
    if len({line.stamp for line in lines}) > 1:
        stamps = ", ".join(str(line.stamp) for line in lines)
        return [("entries-at-one-time", f"its entries carry the times {stamps}")]
    return []
