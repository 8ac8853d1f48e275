"""What was measured, as a table for people and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

from bench.loads import BASELINE
from bench.measure import Figures, ratios
from tandem.cli.terminal import console, table


def document(
    figures: Mapping[str, Figures], settings: Mapping[str, Any], violations: list[str]
) -> dict[str, Any]:
    """Everything, for machines."""
    baseline = figures.get(BASELINE)
    loads: dict[str, Any] = {}
    for name, found in figures.items():
        loads[name] = {"title": found.title, "transfers_per_s": found.rate, "rounds": found.rates}
        loads[name]["total"] = asdict(found.total)
        if baseline is not None and name != BASELINE:
            each = ratios(found, baseline)
            loads[name] |= {"ratio": median(each), "ratios": each}
    return {"settings": dict(settings), "loads": loads, "violations": violations}


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
    screen.print(measured)
    _show_verdict(found)


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
