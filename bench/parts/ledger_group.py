"""A ledger group beside the MySQL engine and textbook XA: loads in turns, in one run."""

import secrets
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from bench import group_oracles, wrk
from bench.draws import Draw, hot, uniform, zipf
from bench.loads import reads
from bench.loads.base import Load, Scale, Tally
from bench.loads.batches import Batches
from bench.loads.columns import Columns
from bench.loads.ledger_node import BATCH, UNDER_WAY, list_bytes
from bench.loads.node_socket import NodeAt, NodeSocket, node_process
from bench.loads.one_by_one import OneByOne
from bench.loads.reads import History, Reads
from bench.loads.singles import CONNECTIONS, Singles
from bench.loads.textbook import Textbook
from bench.parts.base import Finding, Outcome, Sizes
from bench.parts.ledger_group_findings import compared, kept, read, rebuilt
from bench.parts.skew import THREADS, measure_all
from bench.place import Place, cluster
from bench.rebuilding import catch_up_rate, replay_rate
from ledger.errors import Bug
from tandem.local.progress import Report

GroupLoad = Batches | Columns | Singles | OneByOne
L = TypeVar("L", Batches, Columns, Singles)

# The account whose statements are read has so many entries, from so many others.
_ENTRIES = 100_000
_PAYERS = 1000


class _Places(NamedTuple):
    mysql: Place
    group: Place
    node: NodeAt


def ledger_group(sizes: Sizes, report: Report) -> Outcome:
    """Every answer is given after its flush. Both clusters and the node run all the time, and one
    of them has a load.
    """
    outcome = Outcome(
        f"A ledger group beside the MySQL engine: one coordinator each, {CONNECTIONS} connections; "
        f"textbook XA {THREADS} threads; to the node {UNDER_WAY} batches of {BATCH:,} under way"
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tandem-bench-")))
        places = _Places(
            stack.enter_context(cluster(None, 1, sizes.workers, report)),
            stack.enter_context(cluster(None, 1, sizes.workers, report, engine="eventstore")),
            stack.enter_context(node_process(folder / "node", report)),
        )
        outcome.measured_on(places.mysql)
        outcome.settings["workers of each coordinator"] = places.mysql.workers
        _measure(places, sizes, outcome, report)
    return outcome


def _measure(places: _Places, sizes: Sizes, outcome: Outcome, report: Report) -> None:
    name = secrets.token_hex(4)
    payments = Columns(places.group, Scale(_PAYERS, 1, 1, 0), f"{name}paid", "NDJSON", is_hot=True)
    history, paid = _paid(payments, min(sizes.few_entries, _ENTRIES), report)
    url = places.group.urls[0]
    of_group = _group_loads(places.group, sizes, name, report)
    loads: dict[str, Load] = {
        **_mysql_loads(places.mysql, sizes, name, report),
        **of_group,
        "node": NodeSocket(places.node, sizes.few_accounts, "the node's socket"),
        "statement": Reads("a group: statements", url, history, reads.statement),
        "balance at": Reads("a group: balances at a time", url, history, reads.balance_at),
    }
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder, ExitStack() as stack:
        hot_node = stack.enter_context(node_process(Path(folder, "hot"), report))
        title = "the node's socket, one hot account"
        loads["node hot"] = NodeSocket(hot_node, sizes.few_accounts, title, is_hot=True)
        found = measure_all(loads, sizes, outcome, report)
    outcome.findings += compared(found) + [
        read(found[what]) for what in ("statement", "balance at")
    ]
    outcome.findings += _rebuilt(places, sizes, report)
    outcome.findings.append(kept(list_bytes(places.node.folder), found["node"].total.committed))
    acknowledged = [payments.acknowledged(paid)]
    acknowledged += [load.acknowledged(found[key].total) for key, load in of_group.items()]
    all_of_it = range(sum(a[0] for a in acknowledged), sum(a[-1] for a in acknowledged) + 1)
    report("Checking the bank's rules: the audit of the ledger group")
    outcome.violations += group_oracles.audited(places.group, all_of_it, report)


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
    by_zipf = partial(zipf, s=1.0)
    title = f"a group, {_batches(sizes)}"
    singles = partial(_singles, place, sizes)
    return {
        "group": _titled(Batches(place, scale, f"{name}b"), title),
        "group hot": _titled(
            Batches(place, scale, f"{name}h", is_hot=True), f"{title}, one hot account"
        ),
        "group zipf": _titled(
            Batches(place, scale, f"{name}z", draw=by_zipf), f"{title}, Zipf, s = 1"
        ),
        "group singles": singles(f"{name}s", uniform, "a group", report),
        "group singles hot": singles(f"{name}sh", hot, "a group, one hot account", report),
        "group alone": _alone("a group", place, Batches(place, one, f"{name}o"), name),
        "NDJSON": _titled(Columns(place, scale, f"{name}n", "NDJSON"), "a group, NDJSON"),
        "Arrow": _titled(Columns(place, scale, f"{name}a", "Arrow"), "a group, Arrow"),
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


def _rebuilt(places: _Places, sizes: Sizes, report: Report) -> list[Finding]:
    """Of both lists; that with texts takes long, and is read once."""
    if places.group.list_folder is None:
        raise Bug("the cluster of a ledger group has no list")
    report("Making state and read side anew from the lists")
    lists = {
        "account numbers, no keys": (places.node.folder, sizes.rounds),
        "ids and keys": (places.group.list_folder, 1),
    }
    found = []
    for what, (folder, times) in lists.items():
        replays = [replay_rate(folder) for _ in range(times)]
        catch_ups = [catch_up_rate(folder) for _ in range(times)]
        found += rebuilt(what, replays, catch_ups)
    return found
