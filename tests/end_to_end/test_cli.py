"""`tandem` against a running cluster: accounts, transfers, imports, audit, demonstration."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.cluster import read_map
from tandem.cli.demo import run_demo
from tandem.cli.import_result import ImportResult
from tandem.cli.importing import import_file
from tests.bank import Bank
from tests.cluster import Cluster, wait_until
from tests.contract.begun import Begun
from tests.contract.http import visit
from tests.faults.leftovers import Leftover, now_ms, wait_until_finished

TANDEM = str(Path(sys.executable).with_name("tandem"))
COMMAND_TIMEOUT_S = 120
SAMPLES = Path(__file__).resolve().parents[2] / "samples"


class Cli:
    """Runs `tandem` with a cluster's data folder."""

    def __init__(self, cluster: Cluster) -> None:
        variables = {k: v for k, v in os.environ.items() if not k.startswith("TANDEM_")}
        self.environment = {**variables, "TANDEM_DATA_DIR": str(cluster.local.data_dir)}

    def __call__(
        self, *arguments: object, code: int = 0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [TANDEM, *map(str, arguments)],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json").stdout)

    def balance(self, account: str) -> int:
        return int(self.json("account", "show", account)["balance"])


@pytest.fixture(scope="module")
def tandem(mysql_cluster: Cluster) -> Cli:
    return Cli(mysql_cluster)


@pytest.fixture(scope="module")
def bank(tandem: Cli) -> str:
    tandem("account", "create", "cli:bank", "EUR", "--unlimited")
    return "cli:bank"


def new_account(tandem: Cli, name: str) -> str:
    tandem("account", "create", name, "EUR")
    return name


# Accounts


def test_an_account_is_created_once(tandem: Cli) -> None:
    create = ("account", "create", "cli:once", "EUR", "--overdraft-limit", 500)
    assert "created" in tandem(*create).stdout
    assert "already" in tandem(*create).stdout
    refused = tandem("account", "create", "cli:once", "USD", code=1)
    assert "account-exists" in refused.stderr
    assert tandem.json("account", "show", "cli:once")["overdraft_limit"] == 500
    assert "5.00 EUR" in tandem("account", "show", "cli:once").stdout


@pytest.mark.parametrize("name", ["{cli}:a:b", "cli.dots..", "..", "cli-_"])
def test_any_allowed_id_can_be_given(tandem: Cli, name: str) -> None:
    new_account(tandem, name)
    assert tandem.json("account", "show", name)["id"] == name


@pytest.mark.parametrize("name", ["with space", "a/b", "a?b=c", "a#b", "x" * 65, "ünïcode", "'"])
def test_an_id_that_is_not_allowed_is_refused(tandem: Cli, name: str) -> None:
    assert "Error" in tandem("account", "create", name, "EUR", code=1).stderr


def test_an_account_that_is_not_there(tandem: Cli) -> None:
    assert "cli:nobody" in tandem("account", "show", "cli:nobody", code=1).stderr


# Transfers


def test_a_transfer_and_its_statement(tandem: Cli, bank: str) -> None:
    alice = new_account(tandem, "cli:alice")
    done = tandem("transfer", bank, alice, 1250, "EUR", "--metadata", '{"n": 1}')
    assert "12.50 EUR" in done.stdout
    key = re.search(r"Idempotency key: (\w+)", done.stderr)
    assert key is not None
    again = tandem("transfer", bank, alice, 1250, "EUR", "--metadata", '{"n": 1}', "--key", key[1])
    assert "nothing was moved again" in again.stdout
    tandem("transfer", alice, bank, 200, "EUR")

    told = tandem.json("account", "statement", alice)
    assert [(entry["amount"], entry["balance"]) for entry in told["entries"]] == [
        (1250, 1250),
        (-200, 1050),
    ]
    shown = tandem("account", "statement", alice, "--desc", "--limit", 1)
    assert "-2.00 EUR" in shown.stdout
    assert "12.50" not in shown.stdout
    assert "There are more" in shown.stderr


def test_a_statement_of_several_pages_has_each_entry_once(tandem: Cli, bank: str) -> None:
    pages = new_account(tandem, "cli:pages")
    lines = "".join(f"{bank},{pages},{amount},EUR\n" for amount in range(1, 251))
    header = "source,destination,amount,currency\n"
    tandem("import", "-", "--format", "csv", "--name", "pages", stdin=header + lines)
    told = tandem.json("account", "statement", pages, "--limit", 1000)
    assert [entry["amount"] for entry in told["entries"]] == list(range(1, 251))
    assert told["next"] is None
    first = tandem.json("account", "statement", pages, "--limit", 130, "--desc")
    rest = tandem.json(
        "account", "statement", pages, "--limit", 130, "--desc", "--after", first["next"]
    )
    amounts = [entry["amount"] for entry in first["entries"] + rest["entries"]]
    assert amounts == list(range(250, 0, -1))


def test_a_refused_transfer_says_why(tandem: Cli, bank: str) -> None:
    poor = new_account(tandem, "cli:poor")
    refused = tandem("transfer", poor, bank, 1, "EUR", code=1)
    assert "insufficient-funds" in refused.stderr
    assert tandem.json("account", "statement", poor)["entries"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", "b", "0", "EUR"),
        ("a", "b", "1.5", "EUR"),
        ("a", "b", "1e3", "EUR"),
        ("a", "b", str(2**63), "EUR"),
        ("a", "b", "1", "EUR", "--key", ""),
        ("a", "b", "1", "EUR", "--key", "ü"),
        ("a", "b", "1", "EUR", "--metadata", "[]"),
        ("a", "b", "1", "EUR", "--metadata", "{"),
        ("a", "b", "1"),
        ("a", "b", "1", "EUR", "--url", "ftp://x"),
    ],
)
def test_a_command_that_is_not_used_rightly(tandem: Cli, arguments: tuple[str, ...]) -> None:
    tandem("transfer", *arguments, code=2)


def test_a_service_that_cannot_be_reached(tandem: Cli, bank: str) -> None:
    nowhere = ("--url", "http://127.0.0.1:1", "--timeout", 1)
    told = tandem("transfer", bank, bank, 1, "EUR", *nowhere, code=3).stderr
    assert "Nothing has happened" in told


# Imports


def transfers_file(folder: Path, name: str, source: str, destination: str, lines: int) -> Path:
    path = folder / name
    with path.open("w") as file:
        file.write("source,destination,amount,currency\n")
        file.writelines(f"{source},{destination},1,EUR\n" for _ in range(lines))
    return path


def test_every_line_that_is_not_carried_out_is_reported(
    tandem: Cli, bank: str, tmp_path: Path
) -> None:
    someone = new_account(tandem, "cli:someone")
    path, report = tmp_path / "mixed.csv", tmp_path / "report.csv"
    path.write_text(
        "source,destination,amount,currency\n"
        f"{bank},{someone},5,EUR\n"
        f"{bank},{someone},five,EUR\n"
        f"{bank},cli:nobody,5,EUR\n"
        f"{someone},{bank},6,EUR\n"
    )
    done = tandem("import", path, "--report", report, code=1)
    assert "1 committed, 0 replayed, 2 refused, 1 malformed" in done.stdout
    told = [line.split(",")[:3] for line in report.read_text().splitlines()[1:]]
    assert told == [
        ["3", "malformed", "malformed"],
        ["4", "refused", "account-not-found"],
        ["5", "refused", "insufficient-funds"],
    ]
    path.write_text(path.read_text().replace("five", "7"))
    done = tandem("import", path)
    assert "1 committed, 1 replayed, 2 refused" in done.stdout
    assert tandem.balance(someone) == 12


def test_an_import_that_is_killed_is_simply_run_again(
    tandem: Cli, bank: str, tmp_path: Path
) -> None:
    target = new_account(tandem, "cli:killed")
    path = transfers_file(tmp_path, "killed.csv", bank, target, 5000)
    first = subprocess.Popen(
        [TANDEM, "import", str(path), "--chunk", "10"], env=tandem.environment, stdout=-1, text=True
    )
    assert first.stdout is not None
    with first, first.stdout:
        assert any(" rows, " in line for line in first.stdout)
        first.kill()
    done = tandem("import", path)
    counts = re.search(
        r"transfers: 5,000 rows, .*?, ([\d,]+) committed, ([\d,]+) repl", done.stdout
    )
    assert counts is not None
    committed, replayed = (int(count.replace(",", "")) for count in counts.groups())
    assert committed + replayed == 5000
    assert committed > 0
    assert replayed > 0
    assert tandem.balance(target) == 5000


@pytest.mark.parametrize("victim", ["c1", "s1", "s2"])
def test_an_import_outlives_the_crash_of_a_part(
    mysql_cluster: Cluster, tandem: Cli, bank: str, tmp_path: Path, victim: str
) -> None:
    # Both ways across, so that every batch needs both shards.
    names = [new_account(tandem, f"cli:{victim}:{number}") for number in range(4)]
    path = tmp_path / f"{victim}.csv"
    with path.open("w") as file:
        file.write("source,destination,amount,currency\n")
        for line in range(4000):
            file.write(f"{bank},{names[line % 4]},1,EUR\n")
    steps: Iterator[str] = iter(["kill", "start"])
    step = next(steps)

    def disturb(result: ImportResult) -> None:
        nonlocal step
        if step == "kill" and result.rows >= 1000:
            mysql_cluster.local.stop(victim, kill=True)
            step = next(steps)
        elif step == "start" and (result.waiting or result.rows >= 3000):
            mysql_cluster.local.start(victim)
            step = "done"

    try:
        result = import_file(path, mysql_cluster.urls, chunk=200, on_progress=disturb)
    finally:
        if step == "start":
            mysql_cluster.local.start(victim)
    assert step == "done"
    assert (result.committed + result.replayed, result.stopped) == (4000, "")
    assert [tandem.balance(name) for name in names] == [1000] * 4
    assert tandem.json("audit")["violations"] == []


# The demonstration, the audit, the shards


def readme_outcomes() -> dict[str, int]:
    table = (SAMPLES / "README.md").read_text().partition("| outcome | lines |")[2]
    rows = re.findall(r"^\| (?:refused: )?([\w-]+)[^|]* \| ([\d,]+) \|$", table, re.MULTILINE)
    return {name: int(count.replace(",", "")) for name, count in rows}


def test_the_demonstration_twice(
    mysql_cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = readme_outcomes()
    run_demo(mysql_cluster.urls, mysql_cluster.environment)
    first = capsys.readouterr().out
    committed, replayed = expected.pop("committed"), expected.pop("replayed")
    assert f"{committed:,} committed, {replayed:,} replayed" in first
    for reason, count in expected.items():
        assert re.search(rf"{reason} +{count} ", first)
    assert "Every invariant holds" in first
    assert "/docs" in first

    run_demo(mysql_cluster.urls, mysql_cluster.environment)
    second = capsys.readouterr().out
    assert f"0 committed, {committed + replayed:,} replayed" in second
    assert "from an earlier run" in second

    # The printed line is to be pasted as it is.
    curl = re.search(r"^ +(curl .*)$", first, re.MULTILINE)
    assert curl is not None
    for _ in range(2):
        answer = subprocess.run(curl[1], shell=True, capture_output=True, text=True, timeout=30)
        assert json.loads(answer.stdout)["status"] == "committed"


def test_the_audit_names_what_somebody_has_tampered_with(
    mysql_cluster: Cluster, tandem: Cli, bank: str
) -> None:
    victim = new_account(tandem, "cli:tampered")
    tandem("transfer", bank, victim, 100, "EUR")
    shard = tandem.json("account", "show", victim)["shard"]
    change = f"UPDATE accounts SET balance = balance + %d WHERE id = '{victim}'"
    mysql_cluster.rows(shard, change % 1)
    try:
        told = tandem("audit", code=1)
        assert victim in told.stdout
        assert "violations" in told.stderr
    finally:
        mysql_cluster.rows(shard, change % -1)
    assert tandem.json("audit")["violations"] == []


def test_shards_show_check_and_init(tandem: Cli) -> None:
    shown = tandem.json("shards", "show")
    assert sum(shard["slots"] for shard in shown["shards"]) == 4096
    assert all(not shard["problems"] for shard in tandem.json("shards", "check"))
    tandem("shards", "init")
    assert tandem.json("shards", "show")["version"] == shown["version"]


def test_a_broken_setting_is_named(tandem: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tandem.environment, "TANDEM_ENGINE_GROUP_MAX", "many")
    assert "TANDEM_ENGINE_GROUP_MAX" in tandem("shards", "show", code=2).stderr


# Operation


def test_the_cluster_is_shown(tandem: Cli, mysql_cluster: Cluster) -> None:
    told = tandem.json("cluster")
    assert {c["id"]: c["processes"] for c in told["coordinators"]} == {"c1": 2, "c2": 2}
    assert sum(c["leader"] for c in told["coordinators"]) == 1
    assert [s["id"] for s in told["shards"]] == ["s1", "s2"]
    assert all(s["reachable"] and s["trouble"] is None for s in told["shards"])
    assert sum(s["slots"] for s in told["shards"]) == 4096
    published = read_map(mysql_cluster.settings).version
    assert (told["shard_map_version"], told["zookeeper"]) == (published, "connected")
    shown = tandem("cluster").stdout
    assert "yes, term" in shown
    assert f"version {published} is in force" in shown


def test_leadership_is_handed_over(tandem: Cli) -> None:
    leads = lambda: next(c["id"] for c in tandem.json("cluster")["coordinators"] if c["leader"])  # noqa: E731
    before = leads()
    told = tandem("leader", "step-down").stdout
    assert f"{before} has handed over" in told
    after = tandem.json("leader", "step-down")["new"]
    assert after["coordinator"] == before == leads()


def test_what_is_in_doubt_is_listed_and_finished(tandem: Cli, mysql_cluster: Cluster) -> None:
    left = Leftover(Bank(mysql_cluster, 2), "zz", now_ms())
    left.prepare()
    try:
        shown = tandem("in-doubt", "list").stdout
        assert left.gtrid in shown
        assert "none yet" in shown
        (branch,) = [
            b for b in tandem.json("in-doubt", "list")["branches"] if b["gtrid"] == left.gtrid
        ]
        assert (branch["shard"], branch["coordinator"]) == (left.remote, "zz")
        done = tandem("in-doubt", "resolve", left.gtrid).stdout
        assert f"The group is aborted. Branches finished: {left.remote}." in done
    finally:
        wait_until_finished(left, timeout_s=30)
    left.check(is_committed=False)
    assert "nonsense" in tandem("in-doubt", "resolve", "nonsense", code=1).stderr


def test_what_is_unfinished_is_listed_and_finished(tandem: Cli, mysql_cluster: Cluster) -> None:
    town = visit(mysql_cluster)
    alice, bob = town.pair(funds=10)
    left = Begun(town, "saga", alice, bob, 4).until("crediting")
    shown = re.sub(r"\s+", " ", tandem("in-doubt", "list").stdout)
    assert left.gtrid in shown
    assert "saga, crediting" in shown
    assert "goes forward in" in shown
    assert sum(s["unfinished"] for s in tandem.json("cluster")["shards"]) >= 1
    (group,) = [
        g for g in tandem.json("in-doubt", "list")["unfinished"] if g["gtrid"] == left.gtrid
    ]
    assert (group["shard"], group["transfer"]) == ("s1", left.id)
    with town.locked(bob):
        failed = tandem("in-doubt", "resolve", left.gtrid, code=3)
        assert (
            f"Transfer {left.id}: no outcome yet, still crediting: account {bob}" in failed.stdout
        )
        assert f"s1 (account {bob} is locked by other transfers)" in failed.stderr
    # Whoever was asked goes on with it.
    wait_until(lambda: town.balance(bob) == 4, 15, "it has not arrived")
    other = Begun(town, "tcc", alice, bob, 1)
    done = tandem("in-doubt", "resolve", other.gtrid).stdout
    assert f"Transfer {other.id}: nothing has happened, finished." in done
    assert (town.balance(alice), town.balance(bob)) == (6, 4)


def test_a_pending_transfer_is_followed_until_it_is_settled(
    tandem: Cli, mysql_cluster: Cluster
) -> None:
    """By Saga: debited at once, credited when its destination is free; or given back."""
    town = visit(mysql_cluster)
    grace_ms = mysql_cluster.settings.engine.sweep_grace_ms

    def soon_ms() -> int:
        """When what is left to others for a few seconds more was begun."""
        return time.time_ns() // 10**6 - grace_ms + 4_000

    alice, bob = town.pair(funds=10)
    left = Begun(town, "saga", alice, bob, 4, soon_ms()).until("crediting")
    told = tandem("transfer", alice, bob, "4", "EUR", "--key", left.flight.transfer.key).stdout
    assert f"(4 minor units) from {alice} to {bob}, transfer {left.id}" in told
    back = Begun(town, "saga", alice, town.name("s2"), 3, soon_ms()).until("crediting")
    destination = back.flight.transfer.destination
    args = ("transfer", alice, destination, "3", "EUR", "--key", back.flight.transfer.key)
    assert "Refused (account-not-found)" in tandem(*args, code=1).stderr
    assert (town.balance(alice), town.balance(bob)) == (6, 4)
