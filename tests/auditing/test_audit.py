"""The audit on real servers: whatever somebody has changed is named, and nothing else is."""

import re
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

import coordinator.auditing.audit
from coordinator.auditing.anchors import BrokenAnchors
from coordinator.auditing.audit import audit
from coordinator.auditing.history import account_history
from coordinator.auditing.shard_audit import ShardAudit
from coordinator.cluster import read_map
from coordinator.shards.addresses import service_address
from ledger.chain import first_link, next_link
from shard_client.audit import Snapshot
from tandem.cli.audit import audit as audit_command
from tandem.local.progress import silent
from tests.bank import Bank, Load, client
from tests.cluster import Cluster
from tests.faults.leftovers import Leftover, now_ms, wait_until_finished
from tests.hand_on_rows import Books

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shared_books(mysql_cluster: Cluster) -> Books:
    return Books(mysql_cluster)


@pytest.fixture
def books(shared_books: Books, impatient: None) -> Books:
    return shared_books


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays one-sided is called so soon: nobody else moves money meanwhile."""
    monkeypatch.setattr(coordinator.auditing.audit, "_SETTLE_S", 0.1)


INSERT = "INSERT INTO entries SELECT account_id, {0}, 'x', 5, balance + 5, 'x', stamp, chain"


@pytest.mark.parametrize(
    ("damage", "rule", "told"),
    [
        (
            ["UPDATE entries SET amount = amount - 3 WHERE account_id = '@' AND number = 4"],
            "entry-as-written",
            r"entry 4: its amount was -12 and now is -15",
        ),
        (
            ["UPDATE entries SET counterparty = 'x' WHERE account_id = '@' AND number = 4"],
            "entry-as-written",
            r"entry 4: its transfer, counterparty or stamp was changed",
        ),
        (
            ["DELETE FROM entries WHERE account_id = '@' AND number = 4"],
            "entries-without-gaps",
            r"entry 4 is missing: 5 follows",
        ),
        (
            [INSERT.format(8) + " FROM entries WHERE account_id = '@' AND number = 7"],
            "entry-as-written",
            r"entry 8: it was put in behind the account's last entry, 7",
        ),
        (
            [
                "UPDATE entries SET number = number + 1 WHERE account_id = '@' AND number > 3"
                " ORDER BY number DESC",
                INSERT.format(4) + " FROM entries WHERE account_id = '@' AND number = 3",
            ],
            "entry-as-written",
            r"entry 4: it was put in; entry 5 stood in its place",
        ),
        (
            [
                "UPDATE entries SET number = 99 WHERE account_id = '@' AND number = 4",
                "UPDATE entries SET number = 4 WHERE account_id = '@' AND number = 5",
                "UPDATE entries SET number = 5 WHERE account_id = '@' AND number = 99",
            ],
            "entry-as-written",
            r"entry 4: it has changed places with entry 5",
        ),
        (
            ["UPDATE accounts SET chain = 'x' WHERE id = '@'"],
            "account-ends-its-chain",
            r"not the one after entry 7",
        ),
        (
            ["UPDATE accounts SET balance = balance + 1 WHERE id = '@'"],
            "balance-is-sum-of-entries",
            r"the account has 1004, its entries come to 1003",
        ),
    ],
)
def test_what_somebody_has_changed_is_named(
    books: Books, damage: list[str], rule: str, told: str
) -> None:
    with books.restored():
        for statement in damage:
            books.sql(statement)
        found = [(v.rule, v.detail) for v in books.wrong()]
        assert [detail for name, detail in found if name == rule and re.search(told, detail)], found


def test_all_is_well_when_nobody_has(books: Books) -> None:
    result = books.audit()
    assert result.violations == []
    assert result.summary["entries"] >= 14


def _inflate(books: Books) -> None:
    """A transfer of both accounts becomes larger, and all that rests on it is made to fit."""
    more, stolen = 500, books.entries()[3]
    books.sql(f"UPDATE transfers SET amount = amount + {more} WHERE id = '{stolen.transfer}'")
    for account in (books.victim, books.other):
        chain, balance, anew = first_link(account, "EUR"), 0, []
        for entry in books.entries(account):
            extra = 0 if entry.transfer != stolen.transfer else more if entry.amount > 0 else -more
            balance += entry.amount + extra
            changed = entry._replace(amount=entry.amount + extra, balance=balance)
            chain = next_link(chain, *changed[:-1])
            anew.append(changed._replace(chain=chain))
        books.write(anew, account)
        end = f"UPDATE accounts SET balance = {balance}, chain = '{chain}' WHERE id = '@'"
        books.sql(end, account)


def test_a_history_written_anew_is_found_by_its_anchors(books: Books, tmp_path: Path) -> None:
    file = tmp_path / "anchors.jsonl"
    written = books.audit(anchor=file).anchors
    assert written is not None
    assert written.accounts == books.audit(against=file).summary["accounts"]
    with books.restored():
        _inflate(books)
        # The chain alone cannot tell: everything fits.
        assert books.audit().violations == []
        found = books.audit(against=file).violations
        assert {(v.rule, v.subject) for v in found} == {
            ("chain-as-anchored", books.victim),
            ("chain-as-anchored", books.other),
        }
    assert books.audit(against=file).violations == []


def test_an_anchored_account_that_is_gone_is_named(books: Books, tmp_path: Path) -> None:
    file, empty = tmp_path / "anchors.jsonl", f"{books.bank.prefix}-empty"
    with client(books.cluster.urls[0]) as http:
        assert http.put(f"/v1/accounts/{empty}", json={"currency": "EUR"}).status_code == 201
    assert books.audit(anchor=file).anchors is not None
    with books.restored():
        # With its last entries an account's later history is cut off.
        books.sql("DELETE FROM accounts WHERE id = '@'", empty)
        books.write(books.entries()[:3])
        last = books.entries()[-1]
        end = f"balance = {last.balance}, chain = '{last.chain}', entry_count = 3"
        books.sql(f"UPDATE accounts SET {end} WHERE id = '@'")
        found = [(v.rule, v.subject) for v in books.audit(against=file).violations]
        assert ("anchored-account-is-there", empty) in found
        assert ("chain-as-anchored", books.victim) in found
    text = file.read_text().replace("EUR", "USD", 1).replace("[", "[ ", 1)
    file.write_text(text)
    with pytest.raises(BrokenAnchors, match="does not fit its own digest"):
        books.audit(against=file)


def test_nothing_is_anchored_while_something_is_wrong(books: Books, tmp_path: Path) -> None:
    file = tmp_path / "anchors.jsonl"
    with books.restored():
        books.sql("UPDATE accounts SET balance = balance + 1 WHERE id = '@'")
        assert books.audit(anchor=file).anchors is None
    assert list(tmp_path.iterdir()) == []


def test_no_false_alarm_on_a_system_in_use(any_cluster: Cluster, tmp_path: Path) -> None:
    """While a load runs, in threads and in processes; and everything anchored is still there."""
    bank = Bank(any_cluster, 20)
    load, file = Load(bank, any_cluster.urls), tmp_path / "anchors.jsonl"
    with load.running(8):
        load.wait_for("201", 50)
        first = audit(any_cluster.settings, silent, anchor=file)
        assert (first.violations, first.anchors is not None) == ([], True)
        for apart in (True, False):
            result = audit(any_cluster.settings, silent, against=file, apart=apart)
            assert result.violations == []
            assert result.summary["entries"] >= first.summary["entries"]
    bank.check()


def test_no_false_alarm_when_more_is_on_its_way_than_is_held(
    mysql_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moments of the shards are far apart: what is done between them looks one-sided."""
    bank = Bank(mysql_cluster, 20)
    load, begin, begun = Load(bank, mysql_cluster.urls), ShardAudit.begin, []
    one_at_a_time = threading.Lock()

    def one_after_the_other(self: ShardAudit) -> None:
        with one_at_a_time:
            if begun:
                load.wait_for("201", load.counts["201"] + 60)
            begin(self)
            begun.append(self)

    monkeypatch.setattr(ShardAudit, "begin", one_after_the_other)
    monkeypatch.setattr(coordinator.auditing.audit, "_SUSPECTS_MAX", 7)
    looked_at: list[int] = []
    check_again = coordinator.auditing.audit._Audit._check_again

    def counted(self: object, suspects: list, give_up: float) -> list:
        looked_at.append(len(suspects))
        return check_again(self, suspects, give_up)

    monkeypatch.setattr(coordinator.auditing.audit._Audit, "_check_again", counted)
    with load.running(8):
        load.wait_for("201", 20)
        assert audit(mysql_cluster.settings, silent).violations == []
    assert max(looked_at) == 7
    assert len(looked_at) > 1
    monkeypatch.undo()
    bank.check()


def test_every_portion_names_what_is_wrong(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator.auditing.audit, "_SUSPECTS_MAX", 2)
    with books.restored():
        books.sql("DELETE FROM transfers WHERE source = '@'")
        found = [v.subject for v in books.audit().violations if v.rule == "entry-has-transfer"]
    assert sorted(found) == sorted(e.transfer for e in books.entries() if e.amount < 0)


def test_a_transfer_of_another_currency_is_named(books: Books) -> None:
    with books.restored():
        stolen = books.entries()[3].transfer
        books.sql(f"UPDATE transfers SET currency = 'USD' WHERE id = '{stolen}'", books.victim)
        found = [(v.rule, v.subject) for v in books.audit().violations]
    assert found == [("transfer-in-its-currency", stolen)]


def test_what_is_in_doubt_is_no_violation(mysql_cluster: Cluster, impatient: None) -> None:
    left = Leftover(Bank(mysql_cluster, 2), "zz", now_ms())
    left.prepare()
    left.decide()
    result = audit(mysql_cluster.settings, silent)
    assert result.violations == []
    assert result.summary["in doubt"] == 1
    with client(mysql_cluster.urls[0]) as http:
        assert http.post(f"/v1/admin/in-doubt/{left.gtrid}/resolve").status_code == 200
    wait_until_finished(left)
    left.bank.check()


def test_more_violations_than_are_named(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator.auditing.audit, "_NAMED_MAX", 2)
    with books.restored():
        books.sql("UPDATE entries SET stamp = stamp + number WHERE account_id = '@'")
        *named, rest = books.audit().violations
    assert len(named) >= 2
    assert re.search(r"\d+ more of this rule were found", rest.detail)


def test_the_check_in_sql_agrees(any_cluster: Cluster) -> None:
    """The documents have the chain's check in SQL, for who does not trust our Python."""
    text = (PROJECT / "docs" / "data-model.md").read_text()
    query = re.search(r"^SELECT e\.account_id, e\.number.*?;", text, re.MULTILINE | re.DOTALL)
    assert query is not None
    books = Books(any_cluster)
    assert books.victim not in {account for account, _ in books.sql(query[0])}
    with books.restored():
        books.sql("UPDATE entries SET stamp = stamp + 1 WHERE account_id = '@' AND number = 4")
        assert (books.victim, 4) in books.sql(query[0])


def test_pages_are_read_by_the_key(any_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the pages are, everything is read once, in order, without a sort."""
    books = Books(any_cluster)
    shard = books.bank.shard_of(books.victim)
    where = read_map(any_cluster.settings).shards[shard]
    address = service_address(any_cluster.settings, shard, where)
    snapshot = Snapshot(address)
    try:
        whole = list(snapshot.entries())
        assert whole == sorted(whole)
        behind = snapshot._behind(["account_id", "number"], (books.victim, 3))
        explained = books.sql(
            f"EXPLAIN FORMAT=JSON SELECT number FROM entries FORCE INDEX (PRIMARY) WHERE {behind}"
            " ORDER BY account_id, number LIMIT 5"
        )[0][0]
        assert "range" in explained
        assert "filesort" not in explained.replace('"using_filesort": false', "")
        monkeypatch.setattr("shard_client.audit._PAGE", 7)
        assert list(snapshot.entries(books.victim)) == books.entries()
        some = [entry for entry in snapshot.entries() if entry.account >= books.victim]
        assert some == [entry for entry in whole if entry.account >= books.victim]
    finally:
        snapshot.close()


def test_one_account_recomputed(books: Books) -> None:
    run = CliRunner().invoke
    arguments = ["--data-dir", str(books.cluster.local.data_dir), "--account"]
    told = run(audit_command, [*arguments, books.victim])
    assert told.exit_code == 0, told.output
    assert told.output.count("as written") == 8
    with books.restored():
        books.sql("UPDATE entries SET balance = balance + 1 WHERE account_id = '@' AND number = 4")
        told = run(audit_command, [*arguments, books.victim])
        assert told.exit_code == 1
        assert "its balance was" in told.output
        with account_history(books.cluster.settings, books.victim) as history:
            assert history is not None
            wrong = [checked for checked in history.entries if checked.violations]
            assert [checked.entry.number for checked in wrong] == [4, 5]
            assert wrong[0].entry.balance == wrong[0].total + 1
            assert history.end == []
    assert "There is no account" in run(audit_command, [*arguments, "nobody"]).output
