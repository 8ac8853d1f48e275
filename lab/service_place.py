"""What all places have in common where Tandem runs: a local cluster of its own, asked over HTTP."""

import time
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from coordinator.auditing.audit import audit
from coordinator.settings import Settings, load
from lab.result import Deal
from tandem.chaos.faults import Hands
from tandem.chaos.history import Order
from tandem.chaos.watchers import read_view
from tandem.chaos.workload import CURRENCY, Wire
from tandem.local.cluster import LocalCluster
from tandem.local.errors import LocalError

SETUP_PATIENCE_S = 30.0
SETUP_PAUSE_S = 0.5
# Of so many transfers that were answered as committed the service is asked one by one.
ASKED_MAX = 300
# The naive coordinator is one process each, so these are too. A line for each request is no part
# of what is compared.
COORDINATOR = {"TANDEM_COORDINATOR_WORKERS": "1", "TANDEM_LOG_REQUESTS": "errors"}

ISSUER = "issuer"


class ServicePlace:
    """A cluster; see parts.Place."""

    can_read_at_once = True

    def __init__(self, local: LocalCluster, wire: Wire) -> None:
        self.local = local
        self.parts = Hands(local)
        self.urls = local.urls()
        self._wire = wire
        self.settings: Settings = load(environ={}, defaults=local.environment())

    def fund(self, accounts: Sequence[str], each: int) -> None:
        issuer = f"{accounts[0]}-{ISSUER}"
        terms: list[dict[str, Any]] = [{"id": name, "currency": CURRENCY} for name in accounts]
        terms.append({"id": issuer, "currency": CURRENCY, "overdraft_limit": None})
        self._insist("/v1/accounts/batch", {"accounts": terms}, {"created", "exists"})
        orders = [Order(f"fund-{name}", issuer, name, each, CURRENCY) for name in accounts]
        items = {"transfers": [order.item for order in orders]}
        self._insist("/v1/transfers/batch", items, {"committed"})

    def _insist(self, path: str, body: object, wanted: set[str]) -> None:
        give_up = time.monotonic() + SETUP_PATIENCE_S
        for url in cycle(self.urls):
            reply = self._wire.send("POST", f"{url}{path}", body)
            results = reply.body["results"] if reply.status == 200 else []
            if results and {result["status"] for result in results} <= wanted:
                return
            if time.monotonic() > give_up:
                raise LocalError(f"accounts cannot be funded: {path} at {url}: {reply.label}")
            time.sleep(SETUP_PAUSE_S)

    def unfinished(self) -> str | None:
        for url in self.urls:
            reply, view = read_view(self._wire, url)
            if view is None:
                return f"{url} does not tell what is in doubt: {reply.label}"
            if view.branches or view.unreachable:
                return f"{len(view.branches)} branches in doubt"
        return None

    def violations(self, deals: Sequence[Deal]) -> list[str]:
        """The audit of all shards, and of some of the transfers what the service says of them."""
        audited = audit(self.settings, lambda text: None)
        found = [f"{rule}: {subject}" for rule, _, subject, _ in audited.violations]
        for deal in _some([deal for deal in deals if deal.outcome == "committed"], ASKED_MAX):
            reply = self._wire.send("GET", f"{self.urls[0]}/v1/transfers/{deal.id}")
            if reply.status != 200 or reply.body["status"] != "committed":
                found.append(f"GET of a transfer that was answered as committed: {reply.label}")
        return found


def _some(deals: Sequence[Deal], at_most: int) -> Sequence[Deal]:
    """So many at most, evenly from all of them."""
    return deals[:: max(1, -(-len(deals) // at_most))]
