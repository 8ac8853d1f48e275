"""The event store beside the MySQL engine and textbook XA, in one run: a ledger group through its
coordinator, its node by itself, and how state and read side are made anew. What is to be reached
stands in eventstore_goals.py.
"""

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from bench import group_oracles, wrk
from bench.draws import Draw, hot, uniform, zipf
from bench.loads import reads
from bench.loads.base import Load, Scale, Tally
from bench.loads.batches import Batches
from bench.loads.columns import Columns
from bench.loads.ledger_node import BATCH, UNDER_WAY, LedgerNode, list_bytes
from bench.loads.node_socket import NodeAt, NodeSocket, node_process
from bench.loads.one_by_one import OneByOne
from bench.loads.reads import History, Reads
from bench.loads.singles import CONNECTIONS, Singles
from bench.loads.textbook import Textbook
from bench.parts.base import Finding, Outcome, Sizes
from bench.parts.eventstore_findings import caught_up, compared, kept, replayed, started
from bench.parts.eventstore_goals import rows
from bench.parts.eventstore_rates import at_rates
from bench.parts.skew import THREADS, measure_all
from bench.place import Place, cluster
from bench.rebuilding import catch_up_rate, replay_rate, start_seconds
from ledger.errors import Bug
from tandem.local.progress import Report

GroupLoad = Batches | Columns | Singles | OneByOne
L = TypeVar("L", Batches, Columns, Singles)

# The size of the goals: accounts, transfers before a load, and entries of the account that is read.
_ACCOUNTS, _IDS, _ENTRIES = 10_000_000, 100_000_000, 20_000_000
# Without --full no more than that.
_ACCOUNTS_MAX, _ENTRIES_MAX = 200_000, 200_000
# Of that account each other one pays so many, which its money is enough for.
_PAYMENTS = 200


class _Places(NamedTuple):
    """Both clusters, and nodes by themselves: `many` has many accounts."""

    mysql: Place
    group: Place
    node: NodeAt
    hot: NodeAt
    many: NodeAt
    # For the lists of nodes in the process that measures.
    folder: Path


def eventstore(sizes: Sizes, report: Report) -> Outcome:
    """Every answer is given after its flush. Both clusters and the nodes run all the time, and one
    of them has a load.
    """
    outcome = Outcome(
        f"The event store beside the MySQL engine: a coordinator each, {CONNECTIONS} connections; "
        f"textbook XA {THREADS} threads; to the node {UNDER_WAY} batches of {BATCH:,} under way"
    )
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder:
        with _places(Path(folder), sizes, report) as places:
            outcome.measured_on(places.mysql)
            outcome.settings["workers of each coordinator"] = places.mysql.workers
            found = _measure(places, sizes, outcome, report)
            found |= _rebuilt(places, sizes, report)
        seconds = start_seconds(places.many.folder, sizes.rounds, report)
        found["start"] = started(_many_accounts(sizes), seconds)
    outcome.findings += found.values()
    outcome.goals += rows(found, is_full=sizes.full)
    return outcome


@contextmanager
def _places(folder: Path, sizes: Sizes, report: Report) -> Iterator[_Places]:
    with ExitStack() as stack:
        mysql = stack.enter_context(cluster(None, 1, sizes.workers, report))
        group = stack.enter_context(cluster(None, 1, sizes.workers, report, engine="eventstore"))
        node, hot_one, many = (
            stack.enter_context(node_process(folder / name, report))
            for name in ("node", "hot", "many")
        )
        yield _Places(mysql, group, node, hot_one, many, folder)


def _many_accounts(sizes: Sizes) -> int:
    return _ACCOUNTS if sizes.full else min(sizes.many_accounts, _ACCOUNTS_MAX)


def _entries(sizes: Sizes) -> int:
    return _ENTRIES if sizes.full else min(sizes.few_entries, _ENTRIES_MAX)


def _measure(places: _Places, sizes: Sizes, outcome: Outcome, report: Report) -> dict[str, Finding]:
    """All loads in turns, and that the bank's rules hold after them."""
    name = secrets.token_hex(4)
    entries = _entries(sizes)
    payers = Scale(1 + max(entries, BATCH) // _PAYMENTS, 1, 1, 0)
    payments = Columns(places.group, payers, f"{name}paid", "NDJSON", is_hot=True)
    history, paid = _paid(payments, entries, report)
    of_group = _group_loads(places.group, sizes, name, report)
    loads: dict[str, Load] = {
        **_mysql_loads(places.mysql, sizes, name, report),
        **of_group,
        **_node_loads(places, sizes),
        **_reads(places.group.urls[0], history),
    }
    found = measure_all(loads, sizes, outcome, report)
    most = found["textbook"].rate
    rates = at_rates(places.mysql, places.group, most, name, sizes, report)
    outcome.violations += rates.violations
    acknowledged = [payments.acknowledged(paid), rates.acknowledged]
    acknowledged += [load.acknowledged(found[key].total) for key, load in of_group.items()]
    all_of_it = range(sum(a[0] for a in acknowledged), sum(a[-1] for a in acknowledged) + 1)
    report("Checking the bank's rules: the audit of the ledger group")
    outcome.violations += group_oracles.audited(places.group, all_of_it, report)
    bytes_ = kept(list_bytes(places.node.folder), found["node"].total.committed)
    return compared(found) | rates.findings | {"bytes": bytes_}


# --- loads ----------------------------------------------------------------------------------------


def _mysql_loads(place: Place, sizes: Sizes, name: str, report: Report) -> dict[str, Load]:
    scale, one = _scale(sizes), Scale(sizes.few_accounts, 1, 1, sizes.batch)
    return {
        "textbook": Textbook(place, scale, name),
        "mysql": _titled(Batches(place, scale, f"{name}b"), f"MySQL engine, {_batches(sizes)}"),
        "mysql singles": _singles(place, sizes, f"{name}s", uniform, "MySQL engine", report),
        "textbook alone": _alone("textbook XA", place, Textbook(place, one, f"{name}o"), name),
        "mysql alone": _alone("MySQL engine", place, Batches(place, one, f"{name}o"), name),
    }


def _group_loads(place: Place, sizes: Sizes, name: str, report: Report) -> dict[str, GroupLoad]:
    scale, one = _scale(sizes), Scale(sizes.few_accounts, 1, 1, sizes.batch)
    title = f"a group, {_batches(sizes)}"
    singles = partial(_singles, place, sizes)
    return {
        "group": _titled(Batches(place, scale, f"{name}b"), title),
        "hot": _titled(Batches(place, scale, f"{name}h", is_hot=True), f"{title}, one hot account"),
        **{
            f"zipf {s}": _titled(
                Batches(place, scale, f"{name}z{s}", draw=partial(zipf, s=float(s))),
                f"{title}, Zipf, s = {s}",
            )
            for s in (1, 2)
        },
        "singles": singles(f"{name}s", uniform, "a group", report),
        "singles hot": singles(f"{name}sh", hot, "a group, one hot account", report),
        "alone": _alone("a group", place, Batches(place, one, f"{name}o"), name),
        "NDJSON": _titled(Columns(place, scale, f"{name}n", "NDJSON"), "a group, NDJSON"),
        "Arrow": _titled(Columns(place, scale, f"{name}a", "Arrow"), "a group, Arrow"),
        "numbers": _titled(
            Columns(place, scale, f"{name}u", "Arrow numbers"), "a group, Arrow, account numbers"
        ),
    }


def _node_loads(places: _Places, sizes: Sizes) -> dict[str, Load]:
    """Straight to a node: by its socket, and in the process that measures."""
    few, many = sizes.few_accounts, _many_accounts(sizes)
    loads: dict[str, Load] = {
        "node": NodeSocket(places.node, few, "the node's socket"),
        "node hot": NodeSocket(places.hot, few, "the node's socket, one hot account", is_hot=True),
        "many": NodeSocket(places.many, many, f"the node's socket, {many:,} accounts"),
        "inside": LedgerNode(places.folder / "inside", few, "a node without a socket"),
        "frames": LedgerNode(
            places.folder / "frames", few, f"a frame of {BATCH:,} after the other", under_way=1
        ),
    }
    if sizes.full:
        title = f"a node without a socket, {_IDS:,} ids before"
        loads["ids"] = LedgerNode(places.folder / "ids", few, title, ids=_IDS)
    return loads


def _reads(url: str, history: History) -> dict[str, Load]:
    who = f"a group: an account of {history.entries:,} entries"
    return {
        "statement": Reads(f"{who}, statements", url, history, reads.statement),
        "balance at": Reads(f"{who}, balances at a time", url, history, reads.balance_at),
    }


def _scale(sizes: Sizes) -> Scale:
    return Scale(sizes.few_accounts, THREADS, sizes.clients, sizes.batch)


def _batches(sizes: Sizes) -> str:
    return f"JSON batches of {sizes.batch:,}"


def _singles(place: Place, sizes: Sizes, run: str, draw: Draw, who: str, report: Report) -> Singles:
    program, protocol = wrk.find(report), None if place.list_folder else "xa"
    load = Singles(place, _scale(sizes), run, wrk=program, draw=draw, how="", protocol=protocol)
    return _titled(load, f"{who}, one transfer for each request")


def _alone(who: str, place: Place, accounts: Batches | Textbook, name: str) -> OneByOne:
    return OneByOne(f"{who}, one client", place, accounts, f"{name}o")


def _titled(load: L, title: str) -> L:
    load.title = title
    return load


def _paid(payments: Columns, entries: int, report: Report) -> tuple[History, Tally]:
    """Have many pay into one account; its history, and what was done for it."""
    payments.set_up(report)
    report(f"Making an account with {entries:,} entries")
    began = time.time_ns() // 1000
    runner = payments.open()
    tally = runner.send(entries)
    runner.close()
    return History(payments.ids[0], tally.committed, began, time.time_ns() // 1000), tally


def _rebuilt(places: _Places, sizes: Sizes, report: Report) -> dict[str, Finding]:
    """Of both lists; that with texts takes long, and is read once."""
    if places.group.list_folder is None:
        raise Bug("the cluster of a ledger group has no list")
    report("Making state and read side anew from the lists")
    plain, texts = places.node.folder, places.group.list_folder
    no_keys, keys, rounds = "account numbers, no keys", "ids and keys", range(sizes.rounds)
    return {
        "replay": replayed(no_keys, [replay_rate(plain) for _ in rounds]),
        "replay of texts": replayed(keys, [replay_rate(texts)]),
        "catch-up": caught_up(no_keys, [catch_up_rate(plain) for _ in rounds]),
        "catch-up of texts": caught_up(keys, [catch_up_rate(texts)]),
    }
