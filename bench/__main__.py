"""The command line of the bench."""

import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from bench.loads import LOADS
from bench.loads.base import Load, Scale
from bench.measure import Figures, measure
from bench.parts import PARTS
from bench.parts.base import Outcome, Sizes
from bench.parts.options import SHORT as SHORT_PARTS
from bench.parts.options import part_options
from bench.place import Place, cluster, durability
from bench.plot import draw
from bench.report import document, show
from bench.surroundings import machine, surroundings
from coordinator.cluster import ClusterError
from coordinator.settings import SettingsError
from tandem.cli.local import guarded
from tandem.cli.terminal import CommandError, console
from tandem.local.progress import Report, shown


@dataclass(frozen=True)
class Plan:
    """How long it is measured."""

    rounds: int
    seconds: float
    warm_up_s: float


SHORT = Plan(rounds=1, seconds=1.0, warm_up_s=0.2)
SHORT_ACCOUNTS = 2000


def _positive(default: int, help_: str, least: int = 1) -> dict[str, Any]:
    return {"type": click.IntRange(least), "default": default, "show_default": True, "help": help_}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--load",
    "names",
    multiple=True,
    type=click.Choice(list(LOADS)),
    help="The load to measure; may be repeated.  [default: every load]",
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(list(PARTS)),
    help="Measure this instead of the loads; may be repeated.",
)
@click.option("--all", "is_everything", is_flag=True, help="Measure every load and every part.")
@click.option("--rounds", **_positive(5, "How often every load has its turn."))
@click.option("--seconds", **_positive(5, "How long a turn is."))
@click.option(
    "--accounts", **_positive(50_000, "How many accounts, over all shards together.", 100)
)
@click.option("--threads", **_positive(8, "Threads of textbook XA."))
@click.option("--clients", **_positive(4, "Clients that send batches."))
@click.option("--batch", **_positive(1000, "Transfers in a batch."))
@click.option("--coordinators", **_positive(1, "Coordinators of a cluster of its own."))
@click.option("--workers", **_positive(1, "Worker processes of each of them."))
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Measure the local cluster in this folder; what does not run is started, and stopped "
    "afterwards. The accounts stay.  [default: a new one, removed afterwards]",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write everything to this file, too.",
)
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw it all into this file (PNG).",
)
@part_options
@click.option("--short", is_flag=True, help="Only see that it runs: one turn of a second.")
@guarded
def main(
    names: tuple[str, ...],
    parts: tuple[str, ...],
    is_everything: bool,
    rounds: int,
    seconds: int,
    accounts: int,
    threads: int,
    clients: int,
    batch: int,
    coordinators: int,
    workers: int,
    data_dir: Path | None,
    json_file: Path | None,
    plot_file: Path | None,
    short: bool,
    **part_sizes: Any,
) -> None:
    """Measure this engine against textbook XA, in one run, on the same fully durable shards.

    Textbook XA is a plain PyMySQL driver without HTTP: one transfer for each global transaction,
    its decision in a table. The engine is asked over HTTP, with JSON. Every transfer crosses
    shards, between accounts drawn at random. The loads take turns, round after round, and the
    ratio is the median of the rounds'. Afterwards the bank's rules are checked on every shard by
    SQL; exits with 1 if one is broken.

    That is what it does without options. `--part` measures something else, on new clusters:
    growth (few and many accounts and entries), counts (what a transfer costs with 2, 4 and 8
    shards, by the servers' own counters), neighbours (what honest clients get beside somebody who
    misbehaves, a sick shard or a stuck account), batch-sizes (the largest batches beside those of a
    thousand), memory (a coordinator's at full load), smallbank (the benchmark of that name); the
    last three use the cluster of `--data-dir`, if there is one; eventstore (a ledger group and its
    node beside the MySQL engine and textbook XA, and how far its goals are met).
    `--all` measures everything.
    """
    plan, scale = Plan(rounds, seconds, 2.0), Scale(accounts, threads, clients, batch)
    if short:
        plan, scale = SHORT, replace(scale, accounts=min(accounts, SHORT_ACCOUNTS))
        part_sizes |= SHORT_PARTS
    sizes = Sizes(
        **asdict(plan),
        clients=clients,
        batch=batch,
        workers=workers,
        data_dir=data_dir,
        **part_sizes,
    )
    chosen = [name for name in LOADS if name in names or not names]
    others = [name for name in PARTS if name in parts or is_everything]
    try:
        with shown(console(stderr=True)) as report:
            measured = Measured({}, {}, [])
            if names or not others or is_everything:
                with cluster(data_dir, coordinators, workers, report) as place:
                    measured = run(place, plan, scale, chosen, report)
            outcomes = {name: PARTS[name](sizes, report) for name in others}
    except (RuntimeError, ClusterError, SettingsError) as error:
        raise CommandError(f"{error}.") from error
    found = _document(measured, sizes, outcomes)
    show(found)
    if plot_file:
        draw(found, plot_file)
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    if found["violations"]:
        raise CommandError(f"{len(found['violations'])} of the bank's rules are broken.")


class Measured(NamedTuple):
    """What was found of the loads, under which settings."""

    figures: dict[str, Figures]
    settings: dict[str, Any]
    violations: list[str]


def _document(measured: Measured, sizes: Sizes, outcomes: dict[str, Outcome]) -> dict[str, Any]:
    settings = measured.settings or machine()
    if outcomes:
        settings |= asdict(sizes) | {"data_dir": str(sizes.data_dir or "new ones")}
    return document(measured.figures, settings, measured.violations, outcomes)


def run(place: Place, plan: Plan, scale: Scale, names: list[str], report: Report) -> Measured:
    """Measure these loads and check the bank's rules."""
    durable = durability(place)
    for shard, values in durable.items():
        report(f"{shard} is fully durable, " + ", ".join(f"{k}={v}" for k, v in values.items()))
    settings = surroundings(place) | {"durability": durable} | asdict(scale) | asdict(plan)
    name = secrets.token_hex(4)
    loads: dict[str, Load] = {key: LOADS[key](place, scale, name) for key in names}
    for load in loads.values():
        load.set_up(report)
    figures = measure(loads, plan.rounds, plan.seconds, plan.warm_up_s, report)
    violations: list[str] = []
    for key, load in loads.items():
        report(f"Checking the bank's rules: {load.title}")
        violations += load.violations(figures[key].total)
    return Measured(figures, settings, violations)


if __name__ == "__main__":
    main()
