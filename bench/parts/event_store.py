"""The event-sourced ledger beside textbook XA and the MySQL engine's batches, in one run."""

import secrets
import tempfile
from pathlib import Path

from bench.loads.base import Load, Scale
from bench.loads.batches import Batches
from bench.loads.ledger_node import BATCH, UNDER_WAY, LedgerNode
from bench.loads.textbook import Textbook
from bench.parts.base import Outcome, Sizes
from bench.parts.skew import THREADS, finding, measure_all
from bench.place import cluster
from tandem.local.progress import Report

_GOAL_HOT = 0.8


def event_store(sizes: Sizes, report: Report) -> Outcome:
    """Transfers straight to one node, between accounts drawn uniformly, into one hot account, and
    with many accounts.
    """
    scale = Scale(sizes.few_accounts, THREADS, sizes.clients, sizes.batch)
    outcome = Outcome(
        f"The event store's node by itself: no network, batches of {BATCH:,}, {UNDER_WAY} under "
        "way, account numbers, no keys; each answer after fdatasync"
    )
    with (
        tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder,
        cluster(None, 1, sizes.workers, report) as place,
    ):
        outcome.measured_on(place)
        name = secrets.token_hex(4)
        few, many = sizes.few_accounts, sizes.many_accounts
        nodes = {
            "node": LedgerNode(Path(folder, "few"), few, f"node, {few:,} accounts"),
            "hot": LedgerNode(Path(folder, "hot"), few, "node, one hot account", is_hot=True),
            "many": LedgerNode(Path(folder, "many"), many, f"node, {many:,} accounts"),
        }
        loads: dict[str, Load] = {
            "textbook": Textbook(place, scale, name),
            "batches": Batches(place, scale, f"{name}b"),
            **nodes,
        }
        found = measure_all(loads, sizes, outcome, report)
        outcome.findings.append(finding(found["textbook"]))
        outcome.findings.append(finding(found["batches"], found["textbook"]))
        outcome.findings.append(finding(found["node"], found["batches"]))
        for key in ("hot", "many"):
            outcome.findings.append(finding(found[key], found["node"], _GOAL_HOT))
        each = nodes["node"].bytes_on_disk() / max(found["node"].total.committed, 1)
        outcome.settings["bytes of the list for each transfer"] = round(each, 1)
    return outcome
