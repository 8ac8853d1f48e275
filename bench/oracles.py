"""Is every cent where it belongs? Asked of the shards by SQL, apart from the engine's own code."""

import time
from collections import defaultdict
from collections.abc import Iterable

from bench.place import Place, Server

_SETTLE_S = 30.0
_POLL_S = 0.2
_SHOWN_MAX = 10

_MONEY = "SELECT currency, SUM(balance) FROM accounts WHERE id LIKE %s GROUP BY currency"
# Accounts that differ from the sum of their entries, their last entry, or their number of entries.
_ACCOUNTS = (
    "SELECT a.id, a.balance, a.entry_count, e.total, e.count, e.last, l.balance FROM accounts a"
    " LEFT JOIN (SELECT account_id, SUM(amount) AS total, COUNT(*) AS count, MAX(number) AS last"
    "   FROM entries WHERE account_id LIKE %s GROUP BY account_id) e ON e.account_id = a.id"
    " LEFT JOIN entries l ON l.account_id = a.id AND l.number = e.last"
    " WHERE a.id LIKE %s AND (a.balance <> COALESCE(e.total, 0)"
    "   OR a.balance <> COALESCE(l.balance, 0) OR a.entry_count <> COALESCE(e.count, 0)"
    f"   OR a.entry_count <> COALESCE(e.last, 0)) LIMIT {_SHOWN_MAX}"
)
# What is held or expected when nothing is unfinished any more.
_HELD = (
    "SELECT id, held, expected FROM accounts WHERE id LIKE %s AND (held <> 0 OR expected <> 0)"
    f" LIMIT {_SHOWN_MAX}"
)
_SIDES = ("debits", "credits", "transfers")
# Debits, credits and committed transfers are compared across shards in 4,096 parts, by the slot
# in front of the transfer's id. Ids are digests, so the exclusive or of their first 64 bits tells
# whether two sets of equal size are the same.
_DIGEST = "BIT_XOR(CAST(CONV(SUBSTRING({id}, 5, 16), 16, 10) AS UNSIGNED))"
# A Saga that was refused has a debit and a refund, both where its row is.
_ENTRIES = (
    "SELECT LEFT(transfer_id, 3) AS part, IF(amount < 0, 'debits', 'credits') AS side, COUNT(*),"
    f" {_DIGEST.format(id='transfer_id')}, SUM(ABS(amount))"
    " FROM entries WHERE account_id LIKE %s"
    " AND transfer_id NOT IN (SELECT id FROM transfers WHERE status = 'rejected')"
    " GROUP BY part, side"
)
_TRANSFERS = (
    f"SELECT LEFT(id, 3) AS part, 'transfers' AS side, COUNT(*), {_DIGEST.format(id='id')},"
    " SUM(amount) FROM transfers"
    " WHERE source LIKE %s AND status = 'committed' GROUP BY part, side"
)


def violations(place: Place, prefix: str, committed: range) -> list[str]:
    """How the bank's rules are broken among the accounts whose ids begin with `prefix`, and which
    only trade with each other; `committed` says how many transfers were acknowledged, and how many
    may have happened. Empty if all is well.
    """
    found = settle(place.servers)
    found += _unbalanced(place.servers, f"{prefix}%")
    for server in place.servers:
        for id_, balance, count, *rest in server.rows(_ACCOUNTS, f"{prefix}%", f"{prefix}%"):
            total, entries, last, last_balance = rest
            found.append(
                f"{server.shard}: account {id_} has {balance} and counts {count} entries; there "
                f"are {entries}, which add up to {total}; the last, {last}, says {last_balance}"
            )
        for id_, held, expected in server.rows(_HELD, f"{prefix}%"):
            found.append(f"{server.shard}: account {id_} holds {held} and expects {expected}")
    return found + _halved(place.servers, f"{prefix}%", committed)


def settle(servers: Iterable[Server]) -> list[str]:
    """Wait until nothing is unfinished on any shard: no branch prepared, no transfer in a phase
    table; says where something stays.
    """
    deadline = time.monotonic() + _SETTLE_S
    for server in servers:
        while branches := server.rows("XA RECOVER CONVERT XID"):
            if time.monotonic() > deadline:
                return [f"{server.shard}: {len(branches)} branches stay prepared: {branches[0]}"]
            time.sleep(_POLL_S)
        while phases := server.rows("SELECT transfer_id, phase FROM phases LIMIT 10"):
            if time.monotonic() > deadline:
                return [f"{server.shard}: transfers stay unfinished, such as {phases[0]}"]
            time.sleep(_POLL_S)
    return []


def _unbalanced(servers: Iterable[Server], like: str) -> list[str]:
    sums: dict[str, int] = defaultdict(int)
    for server in servers:
        for currency, total in server.rows(_MONEY, like):
            sums[currency] += int(total)
    return [f"all balances in {c} add up to {total}, not 0" for c, total in sums.items() if total]


def _halved(servers: Iterable[Server], like: str, committed: range) -> list[str]:
    """Where debits, credits and committed transfers are not the same set. A side of which a part
    has nothing left is told too, as nothing.
    """
    parts: dict[str, dict[str, tuple[int, int, int]]] = defaultdict(
        lambda: dict.fromkeys(_SIDES, (0, 0, 0))
    )
    for server in servers:
        for statement in (_ENTRIES, _TRANSFERS):
            for part, side, *rest in server.rows(statement, like):
                count, digest, amount = map(int, rest)
                before = parts[part][side]
                parts[part][side] = (before[0] + count, before[1] ^ digest, before[2] + amount)
    found = [
        f"among the transfers {part}-...: (count, digest, amount) are {sides}"
        for part, sides in sorted(parts.items())
        if len(set(sides.values())) != 1
    ][:_SHOWN_MAX]
    count = sum(sides["transfers"][0] for sides in parts.values())
    if count not in committed:
        least, most = committed[0], committed[-1]
        found.append(f"{least} to {most} transfers were acknowledged, {count} are there")
    return found
