"""What was measured, as a table for people and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.table import Table

from bench.loads import BASELINE
from bench.measure import Figures, ratios
from bench.parts.base import Outcome
from tandem.cli.terminal import console, table


def document(
    figures: Mapping[str, Figures],
    settings: Mapping[str, Any],
    violations: list[str],
    outcomes: Mapping[str, Outcome],
) -> dict[str, Any]:
    """Everything, for machines."""
    parts = {name: _part(outcome) for name, outcome in outcomes.items()}
    violations = violations + [text for found in outcomes.values() for text in found.violations]
    baseline = figures.get(BASELINE)
    loads: dict[str, Any] = {}
    for name, found in figures.items():
        loads[name] = {"title": found.title, "transfers_per_s": found.rate, "rounds": found.rates}
        loads[name]["total"] = asdict(found.total)
        if baseline is not None and name != BASELINE:
            each = ratios(found, baseline)
            loads[name] |= {"ratio": median(each), "ratios": each}
    return {
        "settings": dict(settings),
        "loads": loads,
        "parts": parts,
        "violations": violations,
    }


def _part(outcome: Outcome) -> dict[str, Any]:
    """A part, with what is worked out of its findings."""
    findings = [
        asdict(finding) | {"ratio": finding.ratio, "is_met": finding.is_met}
        for finding in outcome.findings
    ]
    goals = [asdict(row) | {"is_met": row.is_met} for row in outcome.goals]
    return asdict(outcome) | {"findings": findings, "goals": goals}


def show(found: Mapping[str, Any]) -> None:
    """Print the document as tables, the ratio last."""
    screen = console()
    measured = table(
        *("load", "transfers/s", "lowest", "highest", "ratio", "apart from committed"),
        right=("transfers/s", "lowest", "highest", "ratio"),
    )
    for load in found["loads"].values():
        rates, other = load["rounds"], load["total"]["other"]
        measured.add_row(
            load["title"],
            *(f"{rate:,.0f}" for rate in (load["transfers_per_s"], min(rates), max(rates))),
            f"{load['ratio']:.1f}" if "ratio" in load else "",
            ", ".join(f"{count:,} {name}" for name, count in other.items()) or "nothing",
        )
    settings = table("setting", "")
    for name, value in found["settings"].items():
        settings.add_row(name.replace("_", " "), _text(value))
    screen.print(settings)
    if found["loads"]:
        screen.print(measured)
    for part in found["parts"].values():
        screen.print(_table_of(part))
        if part["goals"]:
            screen.print(_table_of_goals(part["goals"]))
    _show_verdict(found)


def _table_of(part: Mapping[str, Any]) -> Table:
    shown = table(
        *(part["title"], "", "ratio", "lowest", "highest", "goal", ""),
        right=("ratio", "lowest", "highest", "goal"),
    )
    for finding in part["findings"]:
        figures = ", ".join(f"{_number(x)} {name}" for name, x in finding["figures"].items())
        ratios_ = finding["ratios"]
        ends = (finding["ratio"], min(ratios_), max(ratios_)) if ratios_ else ()
        shown.add_row(
            finding["title"],
            figures,
            *([f"{ratio:.2f}" for ratio in ends] or [""] * 3),
            "" if finding["goal"] is None else f"{finding['goal']:g}",
            _VERDICTS[finding["is_met"]],
        )
    return shown


def _table_of_goals(goals: Sequence[Mapping[str, Any]]) -> Table:
    """Each goal with what was found, and why where it was not measured."""
    shown = table("it must reach", "goal", "found", "ratio", "of", "", right=("ratio", "of"))
    for row in goals:
        why = row["not_measured"]
        shown.add_row(
            row["load"],
            row["goal"],
            ", ".join(f"{_number(x)} {name}" for name, x in row["figures"].items()),
            "" if row["ratio"] is None else f"{row['ratio']:.2f}",
            "" if row["least"] is None else f"{row['least']:g}",
            f"not measured: {why}" if why else _VERDICTS[row["is_met"]],
        )
    return shown


_VERDICTS = {None: "", True: "met", False: "MISSED"}


def _number(value: float) -> str:
    """With about three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _show_verdict(found: Mapping[str, Any]) -> None:
    screen = console()
    broken = found["violations"]
    for text in broken:
        screen.print(f"VIOLATED  {text}")
    if not broken:
        screen.print(
            "The bank's rules hold: no money made or lost, every balance is the sum of its"
        )
        screen.print("entries, every transfer has both or none, all acknowledged ones are there.")
    for load in found["loads"].values():
        if "ratio" in load:
            least, most = min(load["ratios"]), max(load["ratios"])
            screen.print(
                f"\nRatio to textbook XA: {load['ratio']:.1f} (rounds: {least:.1f} to {most:.1f})"
                f" for {load['title']}"
            )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    return "not known" if value is None else str(value)
