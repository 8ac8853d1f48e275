"""The page with the comparison: one file that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from lab import words
from lab.plots import FAULT_COLOURS, plots
from lab.report import Row, groups, money
from lab.result import Comparison, Outcome
from lab.schedule import KINDS, READS
from lab.ways import WAYS


def page(comparison: Comparison) -> str:
    """The whole document."""
    outcomes = comparison.outcomes
    drawn = plots(comparison)
    title = f"{_count_word(len(outcomes))} of moving money, under the same faults"
    parts = [
        f"<h1>{title}</h1>",
        _lead(comparison),
        *_differences(outcomes),
        _verdicts(outcomes),
        "<h2>When to take which</h2>",
        _list(words.when_to_take_which(outcomes)),
        "<h2>All figures</h2>",
        _table(outcomes),
        _list(words.about_books(outcomes)),
        "<h2>The sum of all balances</h2>",
        _figure(
            drawn["sums"],
            "How far the sum of all balances is off",
            words.about_sums(outcomes),
            _kinds(outcomes),
        ),
        _closer(drawn, _kinds(outcomes)),
        "<h2>Throughput</h2>",
        _figure(
            drawn["rates"],
            "Committed transfers over time",
            words.about_rates(outcomes),
            _kinds(outcomes),
        ),
        "<h2>Latency</h2>",
        _figure(drawn["latencies"], "Distribution of latencies", words.about_latency(outcomes)),
        "<h2>What was compared</h2>",
        _ways(outcomes),
        _method(comparison),
        "<h2>What was run</h2>",
        _settings(comparison),
    ]
    style = files("lab").joinpath("page.css").read_text()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _count_word(count: int) -> str:
    numbers = ("No way", "One way", "Two ways", "Three ways", "Four ways", "Five ways")
    return numbers[count] if count < len(numbers) else f"{count} ways"


def _places(outcomes: Sequence[Outcome]) -> str:
    kinds = {WAYS[outcome.way].is_group for outcome in outcomes}
    if kinds == {True}:
        return "one ledger group"
    return "two shards (event sourcing: in one group)" if True in kinds else "two shards"


def _differences(outcomes: Sequence[Outcome]) -> list[str]:
    """Where a way does not run like the others, above all figures; nothing if none does."""
    if not any(WAYS[outcome.way].is_group for outcome in outcomes):
        return []
    return [f'<section class="note"><h3>Not alike</h3>{_list(words.about_groups())}</section>']


def _lead(comparison: Comparison) -> str:
    faults = sum(fault.kind != READS for fault in comparison.outcomes[0].faults)
    total = money(comparison.accounts * comparison.each)
    return (
        f'<p class="lead">{comparison.clients} clients moved money at random between '
        f"{comparison.accounts} accounts on {_places(comparison.outcomes)}, {total} in all, for "
        f"{comparison.seconds:g} s in each way. Meanwhile {faults} faults struck, the same ones "
        "at the same times: coordinators were killed, shards were away, shards were slow. A client "
        "without a clear answer sent its request again. In the end everything was brought back, "
        "and the books were compared with what the clients had been told.</p>"
    )


def _verdicts(outcomes: Sequence[Outcome]) -> str:
    return f'<div class="cards">{"".join(_card(outcome) for outcome in outcomes)}</div>'


def _card(outcome: Outcome) -> str:
    lost = outcome.verdict.lost
    if outcome.is_right:
        kind, told = "good", "every cent is there"
    elif lost > 0:
        kind, told = "bad", f"{money(lost)} gone"
    elif lost < 0:
        kind, told = "bad", f"{money(-lost)} from nowhere"
    else:
        kind, told = "bad", f"{outcome.verdict.accounts_wrong} accounts wrong"
    return (
        f'<div class="card {kind}"><h3>{escape(outcome.title)}</h3>'
        f'<p class="big">{escape(told)}</p><p>{outcome.rate:,.0f} transfers/s</p></div>'
    )


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in sentences)}</ul>"


def _table(outcomes: Sequence[Outcome]) -> str:
    heads = "".join(f'<th scope="col">{escape(outcome.title)}</th>' for outcome in outcomes)
    body = "".join(_table_group(title, rows) for title, rows in groups(outcomes).items())
    return f'<div class="wide"><table><thead><tr><td></td>{heads}</tr></thead>{body}</table></div>'


def _table_group(title: str, rows: Sequence[Row]) -> str:
    head = f'<tr><th scope="rowgroup" colspan="{len(rows[0].cells) + 1}">{escape(title)}</th></tr>'
    return f"<tbody>{head}{''.join(_table_row(row) for row in rows)}</tbody>"


def _table_row(row: Row) -> str:
    cells = "".join(
        f'<td class="bad">{escape(text)}</td>' if is_bad else f"<td>{escape(text)}</td>"
        for text, is_bad in zip(row.cells, row.is_bad, strict=True)
    )
    return f'<tr><th scope="row">{escape(row.title)}</th>{cells}</tr>'


def _kinds(outcomes: Sequence[Outcome]) -> list[str]:
    """The kinds of faults that struck."""
    struck = {fault.kind for outcome in outcomes for fault in outcome.faults}
    return [kind for kind in KINDS if kind in struck]


def _closer(drawn: Mapping[str, str], kinds: Sequence[str]) -> str:
    svg = drawn.get("closer_sums")
    return _figure(svg, "The same, closer", words.about_closer_sums(), kinds) if svg else ""


def _figure(svg: str, label: str, told: Sequence[str], kinds: Sequence[str] = ()) -> str:
    """A plot, with the kinds of faults that are marked in it."""
    legend = _legend(kinds) if kinds else ""
    return (
        f'<figure><div class="wide" role="img" aria-label="{escape(label)}">{svg}</div>{legend}'
        f"<figcaption>{_list(told)}</figcaption></figure>"
    )


def _legend(kinds: Sequence[str]) -> str:
    items = "".join(
        f'<span><i style="background:{FAULT_COLOURS[kind]}"></i>{escape(KINDS[kind])}</span>'
        for kind in kinds
    )
    return f'<p class="legend">{items}</p>'


def _ways(outcomes: Sequence[Outcome]) -> str:
    items = (
        f"<dt>{escape(outcome.title)}</dt><dd>{escape(WAYS[outcome.way].how)}</dd>"
        for outcome in outcomes
    )
    return f"<dl>{''.join(items)}</dl>"


def _method(comparison: Comparison) -> str:
    return _list(
        [
            "Every server and every client runs on this one machine and shares its processors. So "
            "compare the ways, not the numbers: another machine has other numbers.",
            "MySQL makes each commit durable before it answers, a ledger group each frame of its "
            "list. Redis runs with appendonly yes and appendfsync everysec, its usual setting: "
            "a killed process loses nothing by that, a machine that fails may lose a second. So "
            "the naive way is measured with less durability.",
            "A fault is over in the plots when its part is usable again; where that takes long, "
            "the next one comes late. A slow shard stands still for a quarter of a second and goes "
            "on for a tenth, again and again.",
            "The sum is what another client reads of each shard, of both at the same time, but "
            "with nothing that makes these reads one. A wrong sum is a transfer on its way, or one "
            "that is lost. What a read shows is taken to hold until the next one.",
            "How long locks were held is what the coordinators count themselves; what one counts "
            "in the last second before it is killed is not in it.",
            "The naive way keeps no record of transfers: whether one was lost or doubled is seen "
            "only in balances, where a loss and a gain of one account hide each other.",
            "One run is one run. The same seed gives the same faults and the same wishes again; "
            "what they meet is up to time.",
        ]
    )


def _settings(comparison: Comparison) -> str:
    machine = comparison.machine
    settings: Mapping[str, object] = {
        "when": comparison.at,
        "the same again": comparison.again,
        "machine": f"{machine.cores} cores, {machine.memory_gib} GiB, {machine.cpu}",
        "load average before it began": machine.load_average,
        "Tandem": machine.tandem,
        "Python": machine.python,
        "servers": "; ".join(
            f"{outcome.title}: {', '.join(f'{k} {v}' for k, v in outcome.versions.items())}"
            for outcome in comparison.outcomes
        ),
        "seed": comparison.seed,
        "seconds for each way": f"{comparison.seconds:g}",
        "clients": comparison.clients,
        "accounts": f"{comparison.accounts}, with {money(comparison.each)} each",
    }
    items = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in settings.items()
    )
    return f'<div class="wide"><table class="settings"><tbody>{items}</tbody></table></div>'
