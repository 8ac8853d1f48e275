"""History in Parquet files: they prove every balance by themselves, are made once, and whatever is
changed in them is named.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from eventstore.segments.names import segment_firsts
from eventstore.segments.writer import List
from ledger.model import Entry
from tandem.cli.eventstore import eventstore
from tests.eventstore.groups import GROUP
from tests.eventstore.test_reading_model import LAZY, Group, random_frames


class Sealing(Group):
    """A list whose segments are sealed soon."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.close()
        self.reopen()

    def reopen(self) -> None:
        options = {"room_bytes_min": 1000, "segment_bytes": 5000}
        self._list = List.open(self.folder, GROUP, files=LAZY, **options)  # type: ignore[arg-type]

    @property
    def sealed(self) -> int:
        """The last frame of the last sealed segment."""
        return segment_firsts(path.name for path in self.folder.iterdir())[-1] - 1


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Sealing:
    """Amounts and balances up to 2^62 and beyond, refusals, accounts that nobody pays."""
    group = Sealing(tmp_path_factory.mktemp("group") / "list")
    for commands in random_frames(random.Random(5), 60):
        group.add(commands)
    group.close()
    return group


@pytest.fixture
def made(group: Sealing, tmp_path: Path) -> Path:
    """The folder with the history."""
    told = run("history", group.folder, "--to", tmp_path / "history")
    assert told.exit_code == 0, told.output
    return tmp_path / "history"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(eventstore, [str(each) for each in arguments])


def verify(group: Sealing, history: Path) -> Result:
    return run("verify", group.folder, "--history", history)


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def entries_in(table: pa.Table, side: str, other: str) -> Iterator[Entry]:
    """The entries that committed transfers have made on one side, by the files alone."""
    done = table.filter(pc.equal(table["status"], "committed"))
    sign = -1 if side == "source" else 1
    for row in done.to_pylist():
        yield Entry(
            row[side],
            row[f"{side}_entry"],
            row["transfer_id"],
            sign * row["amount"],
            row[f"{side}_balance"],
            row[other],
            int(row["time"].timestamp()) * 1_000_000 + row["time"].microsecond,
            row[f"{side}_chain"],
        )


def test_the_files_alone_prove_every_balance(group: Sealing, made: Path) -> None:
    assert len(files_of(made)) > 3
    table = pa.concat_tables([pq.read_table(path) for path in files_of(made)])
    assert table.schema.field("source_balance").type == pa.int64()
    upto = [
        (id_, wish, reason, at)
        for id_, (wish, reason, at) in group.model.transfers.items()
        if at.seq <= group.sealed
    ]
    told = table.select(["transfer_id", "source", "amount", "reason", "seq"]).to_pylist()
    assert [tuple(row.values()) for row in told] == [
        (id_, wish.source, wish.amount, reason, at.seq) for id_, wish, reason, at in upto
    ]
    assert {reason for *_, reason, _ in upto} >= {None, "insufficient-funds"}
    last = max(at.time_us for *_, at in upto)
    own = {
        (entry.account, entry.number): entry
        for sides in (("source", "destination"), ("destination", "source"))
        for entry in entries_in(table, *sides)
    }
    expected = {
        (entry.account, entry.number): entry
        for entries in group.model.entries.values()
        for entry in entries
        if entry.stamp <= last
    }
    assert own == expected
    # Summed up by the query engine: what came less what went is what each account has.
    balances: Counter[str] = Counter()
    done = table.filter(pc.equal(table["status"], "committed"))
    for side, sign in (("source", -1), ("destination", 1)):
        exact = done.append_column("exact", done["amount"].cast(pa.decimal128(38, 0)))
        summed = exact.group_by(side).aggregate([("exact", "sum")])
        for row in summed.to_pylist():
            balances[row[side]] += sign * int(row["exact_sum"])
    assert max(map(abs, balances.values())) >= 2**62
    for account in group.model.accounts:
        assert balances[account] == group.model.balance_at(account, last)


def test_only_what_is_sealed_is_written_and_only_once(tmp_path: Path) -> None:
    group, history = Sealing(tmp_path / "list"), tmp_path / "history"
    frames = random_frames(random.Random(2), 50)
    for commands in frames[:25]:
        group.add(commands)
    group.close()
    first = json.loads(run("history", group.folder, "--to", history, "--json").stdout)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in files_of(history)}
    assert first == {"written": len(before), "left": 0, "last_seq": group.sealed}
    again = json.loads(run("history", group.folder, "--to", history, "--json").stdout)
    assert again == first | {"written": 0, "left": len(before)}
    group.reopen()
    for commands in frames[25:]:
        group.add(commands)
    group.close()
    # What a crash has left behind of a file.
    torn = history / f"{group.sealed:020d}.parquet.part"
    torn.write_bytes(b"torn")
    more = json.loads(run("history", group.folder, "--to", history, "--json").stdout)
    assert more["left"] == len(before) < len(before) + more["written"]
    assert more["last_seq"] == group.sealed > first["last_seq"]
    torn.unlink()
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in before} == before
    done = verify(group, history)
    assert done.exit_code == 0, done.output
    assert f"Files of history that hold: {len(files_of(history))}" in done.output


def rewritten(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change rows of a file, which says of itself what it has said."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def _one_cent(rows: list[dict[str, Any]]) -> None:
    rows[3]["amount"] += 1


def _a_key(rows: list[dict[str, Any]]) -> None:
    rows[0]["idempotency_key"] += "x"


def _a_time(rows: list[dict[str, Any]]) -> None:
    rows[1]["time"] = rows[1]["time"].replace(microsecond=1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_one_cent, "amount of row 3"),
        (_a_key, "idempotency_key of row 0"),
        (_a_time, "time of row 1"),
        (lambda rows: rows.pop(), "the number of its rows"),
        (lambda rows: rows.append(dict(rows[-1])), "the number of its rows"),
        (lambda rows: rows.reverse(), "of row 0"),
    ],
)
def test_a_changed_row_is_named(
    group: Sealing, made: Path, change: Callable[[list[dict[str, Any]]], object], named: str
) -> None:
    path = files_of(made)[1]
    rewritten(path, change)
    done = verify(group, made)
    assert done.exit_code == 1
    assert f"{path}: " in done.output
    assert named in done.output
    assert len(done.output.splitlines()) == 1


def test_every_flipped_byte_is_named_or_changes_nothing(group: Sealing, made: Path) -> None:
    """A byte that no reader looks at may be anything."""
    path = files_of(made)[0]
    data, table = path.read_bytes(), pq.read_table(path)
    for at in random.Random(3).sample(range(len(data)), 12):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        done = verify(group, made)
        if done.exit_code == 1:
            assert str(path) in done.output
        else:
            assert pq.read_table(path).equals(table), f"byte {at}"
    for torn in (b"", data[:4], data[: len(data) // 2], data[:-1]):
        path.write_bytes(torn)
        assert "unreadable" in verify(group, made).output
        # It is not taken for a file that is there.
        assert run("history", group.folder, "--to", made).exit_code == 1
    path.unlink()
    assert run("history", group.folder, "--to", made).exit_code == 0
    assert verify(group, made).exit_code == 0


def test_a_file_that_is_missing_or_of_another_list_is_named(
    group: Sealing, made: Path, tmp_path: Path
) -> None:
    first, second, third, *_ = files_of(made)
    third.rename(second)
    done = verify(group, made)
    assert done.exit_code == 1
    assert "tandem.first_seq" in done.output
    assert f"{third} is not there" in done.output
    refused = run("history", group.folder, "--to", made)
    assert refused.exit_code == 1
    assert "tandem.first_seq" in refused.output
    second.unlink()
    stranger = made / f"{1:020d}-{10**9:020d}.parquet"
    first.rename(stranger)
    done = verify(group, made)
    for path in (first, second, stranger):
        assert str(path) in done.output
    assert done.exit_code == 1


def test_a_list_without_a_sealed_segment_has_no_files(tmp_path: Path) -> None:
    group = Group(tmp_path / "list")
    group.add(random_frames(random.Random(1), 1)[0])
    group.close()
    told = run("history", group.folder, "--to", tmp_path / "deep" / "history", "--json")
    assert json.loads(told.stdout) == {"written": 0, "left": 0, "last_seq": 0}
    assert files_of(tmp_path / "deep" / "history") == []
