"""Fills the shards of a new cluster with accounts that have a history, quickly.

Everything goes through the ledger's own functions, so that chains, balances and counts hold, and
straight to the shards by SQL. Each shard is filled by a process of its own: the transfers of the
history stay within a shard, between neighbours. Nobody is served meanwhile, so nothing is flushed
before the end, and the binlog is left out.

A third of each account's history comes after all others have theirs: pages that were filled in the
order of their keys are full, and each would be split by the first row that comes then. Those of a
bank that has grown are not.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from itertools import chain
from multiprocessing import get_context
from typing import Any

from bench.place import Place, Server
from ledger.chain import first_link
from ledger.decide import decide
from ledger.ids import slot_of, transfer_id
from ledger.model import Account, Posting, Status, Transfer
from shard_client import statements as sql
from tandem.local.progress import Report

CURRENCY = "EUR"
_AMOUNT = 7
_ROWS_AT_ONCE = 2000
_POLL_S = 2.0
_INSERT_ACCOUNTS = (
    "INSERT INTO accounts (id, currency, balance, overdraft_limit, status, entry_count,"
    " stamp_floor, chain, held, expected, created_at, updated_at) VALUES %s"
)
_DIRTY_MOST = "SET GLOBAL innodb_max_dirty_pages_pct = %s"
_DIRTY_PAGES = 100
_WRITE_OUT_S = 300.0
_FLUSH = "SET GLOBAL innodb_flush_log_at_trx_commit = %s"

Row = tuple[Any, ...]


def fill(place: Place, ids: list[str], entries: int, report: Report) -> int:
    """Open these accounts, without a limit, and let neighbours pay each other until each has its
    share of so many entries. Gives the number of transfers that took.
    """
    share = entries // len(ids)
    mine: dict[str, list[str]] = {server.shard: [] for server in place.servers}
    # In the order of the slots that transfers' ids begin with: rows come nearly sorted.
    for id_ in sorted(ids, key=slot_of):
        mine[place.shard_map.shard_of(id_)].append(id_)
    rows = len(ids) + len(ids) * share * 3 // 2
    began, before = time.monotonic(), _rows_inserted(place)
    try:
        for server in place.servers:
            server.rows(_FLUSH, 0)
        with ProcessPoolExecutor(len(mine), mp_context=get_context("spawn")) as pool:
            work = [pool.submit(_fill_shard, s, mine[s.shard], share) for s in place.servers]
            _await(work, place, rows, before, report)
    finally:
        for server in place.servers:
            server.rows(_FLUSH, 1)
    _write_out(place, report)
    seconds = time.monotonic() - began
    report(f"Filled with {rows:,} rows in {seconds:,.0f} s, {rows / seconds:,.0f} rows/s")
    return sum(done.result() for done in work)


def _await(work: list[Future[int]], place: Place, rows: int, before: int, report: Report) -> None:
    while wait(work, _POLL_S).not_done:
        written = _rows_inserted(place) - before
        report(f"Filling the shards: {written:,} of {rows:,} rows ({written / rows:.0%})")


def _write_out(place: Place, report: Report) -> None:
    """Wait until hardly a page is left to be written, which would slow down what is measured."""
    deadline = time.monotonic() + _WRITE_OUT_S
    for server in place.servers:
        server.rows(_DIRTY_MOST, 0)
    while (left := _sum(place, "Innodb_buffer_pool_pages_dirty")) > _DIRTY_PAGES:
        report(f"Writing out what was filled in: {left:,} pages")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{left:,} pages were not written within {_WRITE_OUT_S:.0f} s")
        time.sleep(_POLL_S)
    for server in place.servers:
        server.rows(_DIRTY_MOST, 90)  # the default


def _rows_inserted(place: Place) -> int:
    return _sum(place, "Innodb_rows_inserted")


def _sum(place: Place, counter: str) -> int:
    status = "SHOW GLOBAL STATUS LIKE %s"
    return sum(int(server.rows(status, counter)[0][1]) for server in place.servers)


def _fill_shard(server: Server, ids: list[str], share: int) -> int:
    """Fill one shard; gives the number of transfers."""
    transfers, now = 0, time.time_ns() // 1000
    early = share - share // 3
    parts = [range(early)]
    if early < share:
        parts.append(range(early, share))
    with server.connect(server.database) as session, session.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        session.begin()
        for pages in chain.from_iterable(_groups(ids, share, now, part) for part in parts):
            for statement, rows in pages.items():
                if rows:
                    cursor.execute(sql.insert(statement, rows))
            session.commit()
            transfers += len(pages[sql.INSERT_TRANSFERS])
    return transfers


def _groups(ids: list[str], share: int, now: int, part: range) -> Iterator[dict[str, list[Row]]]:
    """The rows of this part of the shard's history by their statement, two accounts after the
    other, in groups of moderate size. The accounts are with its beginning.
    """
    pages: dict[str, list[Row]] = _empty()
    for number in range(0, len(ids), 2):
        whole = history(ids[number : number + 2], share, now)
        if part.start == 0:
            pages[_INSERT_ACCOUNTS] += whole[_INSERT_ACCOUNTS]
        pages[sql.INSERT_TRANSFERS] += whole[sql.INSERT_TRANSFERS][part.start : part.stop]
        # They are numbered from 1.
        entries = whole[sql.INSERT_ENTRIES]
        pages[sql.INSERT_ENTRIES] += [entry for entry in entries if entry[1] - 1 in part]
        if sum(map(len, pages.values())) >= _ROWS_AT_ONCE:
            yield pages
            pages = _empty()
    yield pages


def _empty() -> dict[str, list[Row]]:
    return {_INSERT_ACCOUNTS: [], sql.INSERT_ENTRIES: [], sql.INSERT_TRANSFERS: []}


def history(ids: list[str], share: int, now: int) -> dict[str, list[Row]]:
    """The rows of two accounts that have paid each other in turn at the stamp `now`, `share` times
    together; of one account alone, that of an account without entries.
    """
    accounts = {
        id_: Account(id_, CURRENCY, 0, None, Status.OPEN.value, 0, now, first_link(id_, CURRENCY))
        for id_ in ids
    }
    wishes = [
        Transfer(transfer_id(a, key), key, a, b, _AMOUNT, CURRENCY, None, "xa", now)
        for number in range(share if len(ids) == 2 else 0)
        for a, b, key in [(ids[number % 2], ids[1 - number % 2], f"h{number}")]
    ]
    outcomes, changed = decide(accounts, wishes, now)
    postings = [outcome for outcome in outcomes if isinstance(outcome, Posting)]
    entries = [entry for posting in postings for entry in posting]
    return {
        _INSERT_ACCOUNTS: [(*account, now, now) for account in (accounts | changed).values()],
        sql.INSERT_ENTRIES: [tuple(entry) for entry in sorted(entries)],
        sql.INSERT_TRANSFERS: [
            (*wish, "bench", "committed", None, None, posting.debit.stamp)
            for wish, posting in zip(wishes, postings, strict=True)
        ],
    }
