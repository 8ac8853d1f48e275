"""Is every cent where it belongs in a ledger group? Asked over HTTP, and by the audit."""

import os
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import msgspec

from bench.place import Place
from coordinator.auditing.audit import audit
from coordinator.settings import load
from tandem.local.cluster import LocalCluster
from tandem.local.coordinators import configuration_file
from tandem.local.progress import Report

# Of one request; the API takes more, and a line that long needs no test here.
_AT_ONCE = 200
_SHOWN_MAX = 10
_TIMEOUT_S = 60.0


class _Balance(msgspec.Struct):
    account: str
    balance: int
    available: int


class _Balances(msgspec.Struct):
    balances: list[_Balance]


_decode = msgspec.json.Decoder(_Balances).decode


def unbalanced(url: str, ids: list[str]) -> list[str]:
    """Whether accounts that only trade with each other have 0 together, by the API."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)
    total = 0
    for first in range(0, len(ids), _AT_ONCE):
        query = urlencode([("account", id_) for id_ in ids[first : first + _AT_ONCE]])
        connection.request("GET", f"/v1/balances?{query}")
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"balances were answered {answer.status}: {text[:300].decode()}")
        total += sum(found.balance for found in _decode(text).balances)
    connection.close()
    return [f"{ids[0]} and others: all balances add up to {total}"] if total else []


def audited(place: Place, acknowledged: range, report: Report) -> list[str]:
    """What the audit finds, with every chain verified; and whether there are as many transfers in
    the group as all loads together were told of. None may have been refused.
    """
    environment = LocalCluster(Path(place.data_dir)).environment()
    settings = load(configuration_file(), {**os.environ, **environment})
    found = audit(settings, report, apart=True)
    wrong = [f"{v.rule}, {v.subject}: {v.detail}" for v in found.violations[:_SHOWN_MAX]]
    return wrong + miscounted(found.summary, acknowledged)


def miscounted(summary: dict[str, int], acknowledged: range) -> list[str]:
    """Whether entries and transfers, as the audit counts them, are those that are expected."""
    transfers, entries = summary.get("transfers", 0), summary.get("entries", 0)
    wrong = []
    if transfers not in acknowledged:
        least, most = acknowledged[0], acknowledged[-1]
        wrong.append(f"{least} to {most} transfers were acknowledged, {transfers} are there")
    if entries != 2 * transfers:
        wrong.append(f"{transfers} transfers have {entries} entries")
    return wrong
