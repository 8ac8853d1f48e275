"""Every statement of SQL in the documents runs, on both kinds of server, and does what it says."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from coordinator.auditing.audit import audit
from coordinator.auditing.history import accounts_ahead
from tests.bank import Bank, client, post_one, transfer
from tests.cluster import Cluster
from tests.contract.lone import Lone
from tests.faults.leftovers import Leftover, now_ms

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(PROJECT / "docs").rglob("*.md"), *PROJECT.glob("*.md")])
# What a statement begins with. A verb alone, or with `...` in it, only names one.
_STATEMENT = re.compile(
    r"`((?:SELECT|INSERT|UPDATE|DELETE|SET|SHOW|ALTER|CREATE|DROP|GRANT|REVOKE|FLUSH|KILL) [^`]+)`"
)


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```sql\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def statements(block: str) -> list[str]:
    """Those of a block, each without its comments."""
    lines = [line for line in block.splitlines() if not line.startswith("--")]
    return [text.strip() for text in "\n".join(lines).split(";") if text.strip()]


def with_comments(block: str) -> Iterator[tuple[str, str]]:
    """Each statement with the comment in front of it."""
    for part in block.split(";"):
        lines = part.strip().splitlines()
        comment = " ".join(line[3:] for line in lines if line.startswith("--"))
        text = "\n".join(line for line in lines if not line.startswith("--"))
        if text.strip():
            yield comment, text


def named_in_passing() -> list[tuple[str, str]]:
    """Statements in the running text, with the name of their page."""
    found = []
    for page in PAGES:
        for text in _STATEMENT.findall(page.read_text()):
            if "..." not in text.replace("'...'", ""):
                found.append((page.name, text))
    return found


def test_every_page_with_sql_is_looked_at_here() -> None:
    assert {page.name for page in PAGES if blocks(page)} == {
        "data-model.md",
        "missing-branch.md",
        "durability.md",
        "clock-ahead.md",
    }
    outside = r"^```(?!sql)\w*\n(?:SELECT|INSERT|UPDATE|DELETE|SET|START) "
    for page in PAGES:
        assert not re.search(outside, page.read_text(), re.MULTILINE), page


def test_the_queries_for_an_auditor(any_cluster: Cluster) -> None:
    bank = Bank(any_cluster, 2)
    bank.check()
    (block,) = blocks(PROJECT / "docs/data-model.md")
    compared = 0
    for shard in any_cluster.settings.shards:
        for comment, text in with_comments(block):
            rows = any_cluster.rows(shard, text)
            # What compares finds nothing if all is well.
            if "<>" in text or "< -overdraft" in text:
                assert rows == [], comment
                compared += 1
    assert compared == 6 * len(any_cluster.settings.shards)


def test_the_chain_of_the_auditor_finds_what_was_changed(any_cluster: Cluster) -> None:
    bank = Bank(any_cluster, 1)
    (name,) = bank.accounts
    shard = bank.shard_of(name)
    (block,) = blocks(PROJECT / "docs/data-model.md")
    (query,) = (text for comment, text in with_comments(block) if "their chain" in comment)
    change = "UPDATE entries SET stamp = stamp {} 1 WHERE account_id = '{}' AND number = 1"
    any_cluster.rows(shard, change.format("+", name))
    try:
        assert any_cluster.rows(shard, query) == [(name, 1)]
    finally:
        any_cluster.rows(shard, change.format("-", name))


def test_settings(lone: Lone) -> None:
    found = blocks(PROJECT / "docs/operations/durability.md")
    here = "-- MariaDB" if lone.is_mariadb else "-- MySQL"
    (block,) = (block for block in found if block.startswith(here))
    with lone.variables({"innodb_flush_log_at_trx_commit": 2}):
        lone.admin(*statements(block))
        assert lone.admin("SELECT @@global.innodb_flush_log_at_trx_commit") == [(1,)]
    if not lone.is_mariadb:
        lone.admin("RESET PERSIST")


@pytest.mark.parametrize(("page", "statement"), named_in_passing())
def test_statements_in_passing(lone: Lone, page: str, statement: str) -> None:
    """What changes something is looked at only for being one that a server understands."""
    text = statement.replace("tandem@", f"'nobody-{page}'@")
    if text.startswith("DROP USER"):
        text = text.replace("DROP USER", "DROP USER IF EXISTS")
    if "performance_schema.data_locks" in text and lone.is_mariadb:
        return
    lone.admin(text)


# --- missing-branch.md ------------------------------------------------------------------------


def _filled(text: str, values: Mapping[str, str]) -> str:
    for was, now in values.items():
        assert was in text, f"{was} does not stand there any more"
        text = text.replace(was, now)
    return text


def test_a_missing_branch_is_put_back(any_cluster: Cluster) -> None:
    """Who follows the page leaves books that are whole: the chains too."""
    bank = Bank(any_cluster, 2)
    lost = Leftover(bank, "nobody", now_ms())
    lost.prepare_decided()
    lost.roll_back()
    look, really, *_, mend = blocks(PROJECT / "docs/operations/missing-branch.md")
    gtrid = "local-9907.s1.c8.18bcfe56800.42e7aa89dd554849"
    (decision,) = any_cluster.rows(lost.home, look.replace(gtrid, lost.gtrid))
    assert decision[:3] == (lost.gtrid, "committed", lost.remote)
    for text in statements(really.replace(gtrid, lost.gtrid)):
        assert lost.gtrid not in str(any_cluster.rows(lost.remote, text))
    ((stamp,),) = any_cluster.rows(
        lost.home, f"SELECT stamp FROM entries WHERE transfer_id = '{lost.id}'"
    )
    values = {
        "c47-d517147a838ab052d56d99a2cb686ad8": lost.id,
        gtrid: lost.gtrid,
        "'alice'": f"'{lost.source}'",
        "'bob'": f"'{lost.destination}'",
        "300": "5",
        "1795387546697928": str(stamp),
        "'lost-2'": f"'{lost.key}'",
        "'s3'": f"'{lost.remote}'",
    }
    with any_cluster.sql(lost.remote) as connection, connection.cursor() as cursor:
        for text in statements(_filled(mend, values)):
            found = cursor.execute(text)
            assert found == (0 if text in ("START TRANSACTION", "COMMIT") else 1), text
    lost.check(is_committed=True)
    bank.check()


# --- clock-ahead.md -----------------------------------------------------------------------------


@pytest.mark.parametrize("has_entry", [True, False])
def test_a_floor_is_taken_back_where_no_entry_is_ahead(
    any_cluster: Cluster, has_entry: bool
) -> None:
    bank = Bank(any_cluster, 2)
    (name, other), far = bank.two_across(), now_ms() * 1000 + 10**12
    for account in (name, other):
        raise_floor = f"UPDATE accounts SET stamp_floor = {far} WHERE id = '{account}'"
        any_cluster.rows(bank.shard_of(account), raise_floor)
    with client(any_cluster.urls[0]) as http:
        if has_entry:
            answer = post_one(http, transfer(name, other, 5, "ahead"))
            assert answer.status_code == 201, answer.text
        (block,) = blocks(PROJECT / "docs/operations/clock-ahead.md")
        (text,) = statements(block.replace("'alice'", f"'{name}'"))
        with any_cluster.sql(bank.shard_of(name)) as connection, connection.cursor() as cursor:
            assert cursor.execute(text) == (0 if has_entry else 1)
        answer = post_one(http, transfer(bank.issuer, name, 5, "afterwards"))
        assert answer.status_code == (503 if has_entry else 201), answer.text
    ahead = {account for account, _, _ in accounts_ahead(any_cluster.settings)}
    assert (name in ahead, other in ahead) == (has_entry, True)
    bank_is_whole = audit(any_cluster.settings, lambda _: None)
    assert bank_is_whole.violations == []
    assert bank_is_whole.summary["stamped_ahead"] >= 1
