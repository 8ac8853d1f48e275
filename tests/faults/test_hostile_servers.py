"""A shard whose global variables all have the worst value: it is as good as any, or refused by
name.
"""

import csv
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

import coordinator.auditing.export
import tandem.cli.export
from coordinator.http.schemas import time_text
from tests.bank import TERMINAL, Bank, Load, client, post, post_one
from tests.cluster import Cluster
from tests.hostile import variables

ACCOUNTS = 150
SHARD = "s2"
PROTOCOLS = ["xa", "tcc", "saga"]


@pytest.fixture
def bank(any_cluster: Cluster) -> Bank:
    made = Bank(any_cluster, ACCOUNTS)
    made.protocols = PROTOCOLS
    made.strangers = [f"{made.prefix}-nobody"]
    return made


def test_no_variable_of_a_server_changes_what_is_told(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, shards = bank.cluster, bank.cluster.settings.shards
    with (
        variables(cluster, SHARD),
        cluster.coordinator("hostile", tmp_path / "log") as one,
        client(one.url) as http,
    ):
        load = Load(bank, [one.url])
        chance = random.Random(1)
        for protocol in PROTOCOLS:
            # More at once, by the first, than the server takes with one packet.
            more = {"protocol": protocol, "metadata": {"note": "x" * 400}}
            count = 2000 if protocol == "xa" else 300
            items = [bank.random_item(chance) | more for _ in range(count)]
            results = post(http, "/v1/transfers/batch", {"transfers": items})["results"]
            for item, result in zip(items, results, strict=True):
                assert result["status"] in TERMINAL, result
                is_strange = item["destination"] in bank.strangers
                assert (result.get("reason") == "account-not-found") == is_strange, (item, result)
                load.told[item["idempotency_key"]] = (item, result["status"])
        for item in items[:3] + [bank.random_item(chance) for _ in range(30)]:
            answer = post_one(http, item)
            assert answer.status_code in (201, 422), answer.text
            is_known = item["destination"] not in bank.strangers
            assert ("account-not-found" in answer.text) != is_known, answer.text
        # What a killed coordinator leaves, its next life finishes.
        with load.running(4):
            load.wait_for("201", 100)
            one.kill()
        one.start()
        load.check_answers()
        assert len(bank.balances(one.url)) == ACCOUNTS
        entries = http.get(f"/v1/accounts/{bank.issuer}/entries", params={"limit": 1000}).json()
        assert len(entries["entries"]) == ACCOUNTS
        bank.check()
        exported = _export(cluster, tmp_path, monkeypatch)
    counted = "SELECT account_id, COUNT(*) FROM entries GROUP BY account_id"
    assert exported == {a: n for shard in shards for a, n in cluster.rows(shard, counted)}


def _export(cluster: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many entries of each account are exported."""
    monkeypatch.setattr(tandem.cli.export, "SETTLED_S", 0)
    monkeypatch.setattr(coordinator.auditing.export, "SETTLED_S", 0)
    file, now = folder / "all.csv", time_text(time.time_ns() // 1000)
    arguments = ["--from", "2000-01-01T00:00:00Z", "--to", now, "-o", str(file)]
    arguments += ["--data-dir", str(cluster.local.data_dir)]
    result = CliRunner().invoke(tandem.cli.export.export, arguments)
    assert result.exit_code == 0, result.output
    return Counter(row["account"] for row in csv.DictReader(file.read_text().splitlines()))
