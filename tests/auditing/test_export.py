"""Exports on real servers: they say what the statement says, and stay as they are."""

import csv
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import coordinator.auditing.export
import tandem.cli.export
from coordinator.http.schemas import time_text
from tests.bank import client
from tests.cluster import Cluster
from tests.hand_on_rows import Books


@pytest.fixture(scope="module")
def books(mysql_cluster: Cluster) -> Books:
    return Books(mysql_cluster)


@pytest.fixture
def export(books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs `tandem export` up to this very moment, to a file."""
    monkeypatch.setattr(tandem.cli.export, "SETTLED_S", 0)
    monkeypatch.setattr(coordinator.auditing.export, "SETTLED_S", 0)

    def run(name: str, *arguments: str, code: int = 0) -> Path:
        folder = ["--data-dir", str(books.cluster.local.data_dir), "-o", str(tmp_path / name)]
        result = CliRunner().invoke(tandem.cli.export.export, [*arguments, *folder])
        assert result.exit_code == code, result.output
        return tmp_path / name

    return run


def test_an_export_is_final_and_says_what_the_statement_says(books: Books, export) -> None:
    long_ago, now = "2000-01-01T00:00:00Z", time_text(time.time_ns() // 1000)
    span = ["--from", long_ago, "--to", now]
    first = export("first.csv", *span)
    mine = Books(books.cluster)
    assert export("second.csv", *span).read_bytes() == first.read_bytes()
    text = first.read_bytes()
    assert text.count(b"\r\n") == text.count(b"\n")
    rows = list(csv.DictReader(text.decode().splitlines()))
    assert [(r["account"], int(r["number"])) for r in rows] == sorted(
        (r["account"], int(r["number"])) for r in rows
    )
    assert mine.victim not in {row["account"] for row in rows}

    alone = export("one.csv", *span, "--account", books.victim)
    listed = list(csv.DictReader(alone.read_text().splitlines()))
    assert listed == [row for row in rows if row["account"] == books.victim]
    with client(books.cluster.urls[0]) as http:
        stated = http.get(f"/v1/accounts/{books.victim}/entries").json()["entries"]
    assert [
        {**entry, "amount": str(entry["amount"]), "balance": str(entry["balance"])}
        for entry in stated
    ] == [
        {
            "transfer_id": row["transfer_id"],
            "amount": row["amount"],
            "balance": row["balance"],
            "counterparty": row["counterparty"],
            "created_at": row["time"],
        }
        for row in listed
    ]
    assert {row["currency"] for row in listed} == {"EUR"}
    _parquet_agrees(export("all.parquet", *span, "--format", "parquet"), rows)
    assert export("again.parquet", *span, "--format", "parquet").read_bytes() == (
        first.with_name("all.parquet").read_bytes()
    )


def _parquet_agrees(file: Path, rows: list[dict[str, str]]) -> None:
    from pyarrow.parquet import read_table

    told = read_table(file).to_pylist()
    assert len(told) == len(rows)
    for one, other in zip(told, rows, strict=True):
        moment = one.pop("time")
        assert moment.isoformat(timespec="microseconds").replace("+00:00", "Z") == other["time"]
        assert {name: str(value) for name, value in one.items()} == {
            name: value for name, value in other.items() if name != "time"
        }


def test_a_range_is_half_open(books: Books, export) -> None:
    stamps = [entry.stamp for entry in books.entries()]
    span = ["--from", time_text(stamps[0]), "--to", time_text(stamps[-1])]
    file = export("part.csv", *span, "--account", books.victim)
    numbers = [int(row["number"]) for row in csv.DictReader(file.read_text().splitlines())]
    assert numbers == [n for n, stamp in enumerate(stamps, 1) if stamp < stamps[-1]]


def test_what_cannot_be_final_is_refused(books: Books, export, tmp_path: Path) -> None:
    begin = ["--from", "2026-01-01T00:00:00Z"]
    export("x.csv", *begin, "--to", "2999-01-01T00:00:00Z", code=2)
    export("x.csv", *begin, "--to", "2026-01-01T00:00:00Z", code=2)
    export("x.csv", *begin, "--to", "yesterday", code=2)
    export("x.csv", *begin, "--to", "2026-01-02T00:00:00Z", "--account", "nobody", code=1)
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_is_ahead_does_not_make_a_range_final(
    books: Books, export, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards' clocks count too: this machine's is as far ahead as its check is left out."""
    monkeypatch.setattr(coordinator.auditing.export, "SETTLED_S", 15)
    floors = books.sql("SELECT stamp_floor FROM accounts WHERE id = '@'")
    early, late = (time_text(time.time_ns() // 1000 - ago * 1_000_000) for ago in (10, 20))
    begin = ["--from", "2000-01-01T00:00:00Z", "--account", books.victim]
    export("early.csv", *begin, "--to", early, code=1)
    assert books.sql("SELECT stamp_floor FROM accounts WHERE id = '@'") == floors
    assert export("late.csv", *begin, "--to", late).exists()


def test_an_export_waits_for_who_is_at_work_on_an_account(
    books: Books, export, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that has locked an account may still stamp its entry within the range."""
    monkeypatch.setattr("coordinator.auditing.export._TRIES", 1)
    now = time_text(time.time_ns() // 1000)
    span = ["--from", "2000-01-01T00:00:00Z", "--to", now, "--account", books.victim]
    with books.cluster.sql(books.bank.shard_of(books.victim)) as session:
        with session.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(f"SELECT 1 FROM accounts WHERE id = '{books.victim}' FOR UPDATE")
        export("busy.csv", *span, code=1)
        session.rollback()
    assert export("free.csv", *span).exists()
