"""Whatever calls itself pure is held to it by the import rules."""

import ast
import configparser
import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def callers_of_themselves_pure() -> set[str]:
    found = set()
    for package in ("ledger", "eventstore", "shard_client", "coordinator"):
        for path in sorted((PROJECT / package).rglob("*.py")):
            told = ast.get_docstring(ast.parse(path.read_text())) or ""
            if re.search(r"\bpure\b", told, re.I):
                parts = path.relative_to(PROJECT).with_suffix("").parts
                found.add(".".join(part for part in parts if part != "__init__"))
    return found


def test_what_calls_itself_pure_is_checked() -> None:
    rules = configparser.ConfigParser()
    rules.read(PROJECT / "setup.cfg")
    held = [
        module
        for contract in ("ledger", "pure")
        for module in rules[f"importlinter:contract:{contract}"]["source_modules"].split()
    ]
    pure = callers_of_themselves_pure()
    assert "coordinator.engine.planning" in pure
    missing = {m for m in pure if not any(m == h or m.startswith(f"{h}.") for h in held)}
    assert missing == set()
