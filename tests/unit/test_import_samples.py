"""The sample files: made by their script, and decided by the ledger as their README says."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ledger.chain import first_link
from ledger.decide import decide, refuse_reuse
from ledger.ids import transfer_id
from ledger.model import Account, Refusal, Status, Transfer
from tandem.cli.import_rows import Format, rows_of

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"


def items(name: str, format: Format) -> Iterator[dict[str, Any]]:
    with (SAMPLES / name).open("rb") as stream:
        for row in rows_of(stream, format, name)[1]:
            assert row.item is not None, row
            yield row.item


def outcomes() -> Counter[str]:
    """What becomes of the sample transfers, one by one, in an empty system."""
    accounts = {
        item["id"]: Account(
            *(item["id"], item["currency"], 0, item["overdraft_limit"], Status.OPEN, 0, 0),
            first_link(item["id"], item["currency"]),
        )
        for item in items("accounts.csv", "csv")
    }
    stored: dict[str, Transfer] = {}
    counts: Counter[str] = Counter()
    for item in items("transfers.jsonl", "jsonl"):
        key, metadata = item.pop("idempotency_key"), msgspec.json.encode(item.pop("metadata"))
        asked = Transfer(
            transfer_id(item["source"], key), key, **item,
            metadata=metadata.decode(), protocol="xa", created_at=0,
        )  # fmt: skip
        if asked.id in stored:
            reused = refuse_reuse(stored[asked.id], asked)
            counts[f"refused: {reused.reason}" if reused else "replayed"] += 1
            continue
        [outcome], changed = decide(accounts, [asked], 0)
        accounts |= changed
        if isinstance(outcome, Refusal):
            counts[f"refused: {outcome.reason}"] += 1
        else:
            counts["committed"] += 1
        if not isinstance(outcome, Refusal) or outcome.is_recorded:
            stored[asked.id] = asked
    assert sum(account.balance for account in accounts.values()) == 0
    return counts


def test_the_outcomes_are_those_of_the_readme() -> None:
    table = (SAMPLES / "README.md").read_text().partition("| outcome | lines |")[2]
    rows = re.findall(r"^\| ([^|(]+?)(?: \([^|]*)? \| ([\d,]+) \|$", table, re.MULTILINE)
    assert {name: int(count.replace(",", "")) for name, count in rows} == outcomes()


def test_the_script_makes_the_same_files_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "make-sample", tmp_path], check=True)
    for name in ("accounts.csv", "transfers.jsonl"):
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes()
