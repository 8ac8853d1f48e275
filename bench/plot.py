"""What was measured, as one picture: the ratios with their goals, and the curves of the parts."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

_WIDTH, _BAR, _PANEL = 10.0, 0.4, 3.2


def draw(found: Mapping[str, Any], file: Path) -> None:
    """Draw the document. Raises RuntimeError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeError("--plot needs matplotlib: pip install 'tandem[bench]'") from error
    ratios = _ratios(found)
    curved = [part for part in found["parts"].values() if part["curves"]]
    heights = [1 + _BAR * len(ratios)] * bool(ratios) + [_PANEL] * len(curved)
    if not heights:
        raise RuntimeError("nothing was measured that could be drawn: there is no ratio")
    figure = Figure((_WIDTH, sum(heights) + 1), layout="constrained")
    panels = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    if ratios:
        _draw_ratios(panels[0], ratios)
    for panel, part in zip(panels[bool(ratios) :], curved, strict=True):
        _draw_curves(panel, part)
    settings = found["settings"]
    title = f"commit {settings['commit']}, {settings['cores']} cores, {settings['memory_gib']} GiB"
    figure.suptitle(title, fontsize="medium")
    figure.savefig(file, format="png", dpi=120)


def _ratios(found: Mapping[str, Any]) -> list[tuple[str, list[float], float | None]]:
    """Title, ratio of each round and goal of all that has a ratio, the first at the top."""
    loads = [
        (f"{load['title']}, to textbook XA", load["ratios"], load.get("goal"))
        for load in found["loads"].values()
        if "ratios" in load
    ]
    findings = (finding for part in found["parts"].values() for finding in part["findings"])
    return loads + [(f["title"], f["ratios"], f["goal"]) for f in findings if f["ratios"]]


def _draw_ratios(panel: Any, ratios: list[tuple[str, list[float], float | None]]) -> None:
    """A bar for each median, a line from the lowest to the highest, a mark for the goal."""
    from matplotlib.ticker import LogLocator

    panel.set_xscale("log")
    for place, (_, each, goal) in enumerate(ratios):
        middle = median(each)
        is_missed = goal is not None and middle < goal
        panel.barh(place, middle, color="tab:red" if is_missed else "tab:blue", alpha=0.6)
        panel.plot([min(each), max(each)], [place, place], color="black")
        if goal is not None:
            panel.plot([goal, goal], [place - 0.4, place + 0.4], color="tab:green", linewidth=3)
        panel.annotate(
            f"{middle:.2f}",
            (0, place),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
        )
    panel.set_yticks(range(len(ratios)), [title for title, *_ in ratios])
    panel.invert_yaxis()
    panel.set_xlim(left=min(0.1, *(min(each) / 2 for _, each, _ in ratios)))
    panel.set_xticks([], minor=True)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_title("ratios: median, lowest to highest round; green: the goal", fontsize="medium")


def _draw_curves(panel: Any, part: Mapping[str, Any]) -> None:
    for curve in part["curves"]:
        is_short = len(curve["x"]) < 20
        panel.plot(curve["x"], curve["y"], marker="." if is_short else "", label=curve["title"])
    panel.set_xlabel(part["axes"][0])
    panel.set_ylabel(part["axes"][1])
    panel.set_ylim(0, max(max(curve["y"]) for curve in part["curves"]) * 1.1)
    panel.legend(loc="lower right")
    panel.set_title(part["title"], fontsize="medium")
