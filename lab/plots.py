"""The plots of the page, as SVG to be put into it: they take their colours and fonts from there."""

import re
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

from lab.result import Comparison, Outcome
from lab.schedule import AWAY, KILL, READS, SLOW

WAY_COLOURS = {
    "naive": "#d4513f",
    "xa": "#3d7fc1",
    "tcc": "#38985a",
    "saga": "#a371c4",
    "eventstore": "#d6498f",
}
FAULT_COLOURS = {KILL: "#c0392b", AWAY: "#e08e0b", SLOW: "#7f8c9b", READS: "#1f9e9e"}
# Stand for what the page has: its colour of text, and that of its thin lines.
_TEXT, _LINE = "#010203", "#040506"
_WIDTH, _PANEL, _SINGLE = 8.6, 1.35, 3.4
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "legend.frameon": False,
}


def plots(comparison: Comparison) -> dict[str, str]:
    """SVG of each plot by name: rates, latencies, sums, and closer_sums if there is what to see.

    Raises ImportError without matplotlib.
    """
    outcomes = comparison.outcomes
    closer = [o for o in outcomes if o.plain.wrong_since_s is None and o.plain.wrong_share > 0]
    height = _height(outcomes)
    made = {
        "rates": _drawn("rates", height, lambda figure: _rates(figure, outcomes)),
        "latencies": _drawn("latencies", _SINGLE, lambda figure: _latencies(figure, outcomes)),
        "sums": _drawn("sums", height, lambda figure: _sums(figure, outcomes, sharey=True)),
    }
    if closer:
        made["closer_sums"] = _drawn(
            "closer_sums", _height(closer), lambda figure: _sums(figure, closer, sharey=False)
        )
    return made


def _height(outcomes: Sequence[Outcome]) -> float:
    return _PANEL * len(outcomes) + 0.5


def _drawn(name: str, height: float, draw: Callable[[Any], None]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {**_SETTINGS, "svg.hashsalt": name}
    with rc_context(settings):
        figure = Figure((_WIDTH, height), layout="constrained")
        draw(figure)
        buffer = StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return embedded(buffer.getvalue(), name)


def embedded(svg: str, name: str) -> str:
    """An SVG document as a part of a page: no addresses, ids of its own, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", svg)
    return svg.replace(_TEXT, "currentColor").replace(_LINE, "var(--line)")


def _panels(figure: Any, outcomes: Sequence[Outcome], *, sharey: bool) -> list[Any]:
    """A panel for each way, one below the other, with the faults marked."""
    panels = list(figure.subplots(len(outcomes), sharex=True, sharey=sharey, squeeze=False)[:, 0])
    for panel, outcome in zip(panels, outcomes, strict=True):
        panel.set_title(outcome.title)
        for fault in outcome.faults:
            panel.axvspan(
                fault.began, fault.ended, color=FAULT_COLOURS[fault.kind], alpha=0.22, linewidth=0
            )
    panels[-1].set_xlabel("seconds since the load began")
    return panels


def _rates(figure: Any, outcomes: Sequence[Outcome]) -> None:
    panels = _panels(figure, outcomes, sharey=False)
    for panel, outcome in zip(panels, outcomes, strict=True):
        times, hits = zip(*outcome.rates, strict=True)
        panel.fill_between(times, hits, color=WAY_COLOURS[outcome.way], alpha=0.2, linewidth=0)
        panel.plot(times, hits, color=WAY_COLOURS[outcome.way], linewidth=1.5)
        panel.set_ylim(bottom=0)
    figure.supylabel("transfers/s", fontsize=9)


def _latencies(figure: Any, outcomes: Sequence[Outcome]) -> None:
    panel = figure.subplots()
    panel.set_xscale("log")
    for outcome in outcomes:
        if outcome.latencies:
            waits, shares = zip(*outcome.latencies, strict=True)
            colour = WAY_COLOURS[outcome.way]
            panel.step(
                [wait * 1000 for wait in waits],
                [share * 100 for share in shares],
                where="post",
                color=colour,
                linewidth=1.8,
                label=outcome.title,
            )
    panel.set_xlabel("milliseconds from the first sending to the clear answer")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_ylabel("per cent of the transfers")
    panel.set_ylim(0, 101)
    panel.legend(loc="lower right")


def _sums(figure: Any, outcomes: Sequence[Outcome], *, sharey: bool) -> None:
    panels = _panels(figure, outcomes, sharey=sharey)
    for panel, outcome in zip(panels, outcomes, strict=True):
        if outcome.sums:
            times, offs = zip(*outcome.sums, strict=True)
            money = [off / 100 for off in offs]
            panel.fill_between(
                times, money, color=WAY_COLOURS[outcome.way], alpha=0.25, linewidth=0
            )
            panel.plot(times, money, color=WAY_COLOURS[outcome.way], linewidth=1.2)
        panel.axhline(0, color=_TEXT, linewidth=0.8)
    figure.supylabel("EUR missing (below zero)", fontsize=9)
