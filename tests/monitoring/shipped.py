"""The monitoring that the product ships, read for tests."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

PROJECT = Path(__file__).resolve().parents[2]
PROMETHEUS = PROJECT / "config/prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))
BOARDS = sorted((PROJECT / "grafana/dashboards").glob("*.json"))


class Alert(NamedTuple):
    """One alert rule."""

    name: str
    expression: str
    severity: str
    annotations: dict[str, str]


def _rules() -> list[dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [
    Alert(rule["alert"], rule["expr"], rule["labels"]["severity"], rule["annotations"])
    for rule in _rules()
    if "alert" in rule
]
# Name -> expression.
RECORDED: dict[str, str] = {rule["record"]: rule["expr"] for rule in _rules() if "record" in rule}


def metrics(expression: str) -> set[str]:
    """The coordinator's metrics that an expression reads, also by way of recorded rules."""
    found = set(re.findall(r"\bcoordinator_\w+", expression))
    for name in re.findall(r"\btandem:[\w:]+", expression):
        found |= metrics(RECORDED[name])
    return found


def is_of_groups(asked: str) -> bool:
    """Whether a metric, or a selector, is there only where a ledger group is."""
    return asked.startswith("coordinator_ledger_") or 'kind="ledger"' in asked


def panels(board: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard's file."""
    found: list[dict[str, Any]] = json.loads(board.read_text())["panels"]
    return found
