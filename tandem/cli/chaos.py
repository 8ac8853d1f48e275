"""`tandem chaos`: a bank under load while its parts are killed and frozen; is every answer true?"""

import os
import random
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from coordinator.telemetry.metrics import PROTOCOLS
from tandem.chaos import fitting, nemesis
from tandem.chaos.faults import PointsEnvironment
from tandem.chaos.lines import Lines
from tandem.chaos.report import Result, Screen, clock_since, summary
from tandem.chaos.run import Plan, Run, SetupFailed, Target
from tandem.cli.client import urls_of
from tandem.cli.configuration import named_errors
from tandem.cli.local import guarded
from tandem.cli.terminal import CommandError, console, json_option, print_json
from tandem.local import coordinators, state
from tandem.local.cluster import LocalCluster, Options
from tandem.local.progress import shown
from tandem.local.servers import PROJECT, Engine

SEED_MAX = 10**9
TEST_BUILD = "faults"
# What it is needed for.
_TEST_BUILD_FAULTS = frozenset({"points", "clocks"})


def _faults(ctx: click.Context, param: click.Parameter, value: str | None) -> frozenset[str] | None:
    """Words of nemesis.FAULTS, separated by commas."""
    if value is None:
        return None
    words = frozenset(word.strip() for word in value.split(",") if word.strip())
    if unknown := words - set(nemesis.FAULTS):
        allowed = ", ".join(nemesis.FAULTS)
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; allowed: {allowed}")
    return words


def _protocols(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> frozenset[str] | None:
    """Names of protocols, separated by commas."""
    if value is None:
        return None
    words = frozenset(word.strip() for word in value.split(",") if word.strip())
    if not words or not words <= set(PROTOCOLS):
        allowed = ", ".join(PROTOCOLS)
        raise click.BadParameter(f"{value!r}; allowed: one or more of {allowed}")
    return words


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    default=60,
    show_default=True,
    help="How long, besides the time to set up, to heal and to look at everything.",
)
@click.option("--seed", type=click.IntRange(0), help="[default: another each time]")
@click.option("--clients", type=click.IntRange(1, 256), default=16, show_default=True)
@click.option(
    "--accounts",
    type=click.IntRange(2, 1000),
    default=16,
    show_default=True,
    help="The fewer, the more they are fought over.",
)
@click.option(
    "--shards", type=click.IntRange(1, 64), help="[default: 3; with eventstore its one group]"
)
@click.option("--coordinators", type=click.IntRange(1, 16), help="[default: 3]")
@click.option(
    "--engine",
    type=click.Choice(["mysql", "mariadb", "eventstore"]),
    help="[default: mysql; of a cluster in --data-dir, its own]",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of a local cluster, there already or not.  [default: a cluster of its own, "
    "which is removed afterwards and kept after a violation]",
)
@click.option(
    "--url",
    multiple=True,
    help="Address of a coordinator (several). Nothing is killed then: load and oracles only.",
)
@click.option(
    "--faults",
    callback=_faults,
    help=f"A list out of: {', '.join(nemesis.FAULTS)}.  [default: all that can be had and fit "
    f"the shards but {nemesis.LOSSES}]",
)
@click.option(
    "--protocols",
    callback=_protocols,
    help=f"By which of {', '.join(PROTOCOLS)} the transfers run, mixed at random.  [default: all "
    "that the shards can]",
)
@click.option(
    "--plant",
    type=click.Choice(sorted(nemesis.PLANTS)),
    help="Plant a bug in the coordinators, to see it found. Only with the test build.",
)
@json_option
@guarded
def chaos(**options: Any) -> None:
    """Move money at random while parts are killed and frozen, and check that every answer is true.

    Clients move random amounts between a few accounts. Meanwhile coordinators, their workers,
    shards and ZooKeeper are killed, stopped and frozen, and coordinators strike themselves at
    points of their own code (`points`: needs the test build of a checkout, and a cluster of its
    own, as `clocks` and `lines` do). Lines to shards drip, delay and fall silent, a foreign
    session keeps accounts locked, global variables of shards go to their worst values,
    coordinators' clocks jump, and requests that are to be refused come beside those of the
    clients. All the time, and once more at the end, everything is checked: the balances of each
    snapshot add up; what was acknowledged is there, once; what was refused is not; nothing stays
    in doubt or locked.

    \b
    Examples:
      tandem chaos                                    a minute of everything, on its own cluster
      tandem chaos --seconds 300 --seed 7
      tandem chaos --faults coordinators,workers
      tandem chaos --engine eventstore
      tandem chaos --url http://127.0.0.1:8080 --url http://127.0.0.1:8081

    With `--engine eventstore` the shard is a ledger group: its node and its read side are killed,
    stopped and frozen, and what the read side keeps is removed. In the end its list is replayed by
    a new machine, and compared with what the read side tells.

    With `losses` a hand takes decided branches away, and what is checked is that the coordinators
    name each loss; balances cannot be right then.

    A seed gives the same choices again; what they meet is up to time. Exits with 1 if there is a
    violation, and names each.
    """
    as_json = options.pop("as_json")
    engine = _engine(options)
    options["protocols"] = protocols = _fitting_protocols(options["protocols"], engine)
    _check_fits(options, engine)
    options["seed"] = seed = _seed(options["seed"])
    again = command_line(options)
    screen_console = console(stderr=as_json)
    clock = clock_since(time.monotonic())
    screen = Screen(screen_console, clock)
    screen_console.print(f"seed {seed}; the same again: {again}")
    with named_errors(), _target(options, engine) as (target, faults):
        plan = Plan(
            seed,
            options["seconds"],
            options["clients"],
            options["accounts"],
            faults,
            f"chaos-{time.time_ns() // 1_000_000:x}",
            again,
            ends_when_found=options["plant"] is not None,
            protocols=sorted(protocols),
            engine=engine,
        )
        try:
            result = Run(plan, target, screen, clock).result()
        except SetupFailed as error:
            raise CommandError(str(error)) from error
        _show(result, as_json)
        if result.violations:
            raise CommandError(f"{len(result.violations):,} violations were found; again: {again}")


def _engine(options: dict[str, Any]) -> Engine:
    """Which kind of shard it is about: that of the cluster in --data-dir, if there is one."""
    asked: Engine | None = options["engine"]
    folder: Path | None = options["data_dir"]
    known = state.load(folder.absolute()) if folder and not options["url"] else None
    return asked or (known.engine if known else "mysql")


def _fitting_protocols(asked: frozenset[str] | None, engine: Engine) -> frozenset[str]:
    """Those asked for, or all. Raises a UsageError for one that the shards take no part in."""
    can = fitting.PROTOCOLS_OF[engine]
    if asked and not asked <= can:
        words, allowed = ", ".join(sorted(asked - can)), ", ".join(sorted(can))
        raise click.UsageError(f"--protocols {words} does not fit {engine}; allowed: {allowed}")
    return asked or can


def _check_fits(options: dict[str, Any], engine: Engine) -> None:
    """Raise a UsageError for what does not fit the kind of shard."""
    if why := fitting.misfit(options["faults"] or (), engine):
        raise click.UsageError(f"--faults that do not fit {engine}: {why}")
    plant = options["plant"]
    if plant and not fitting.plant_fits(plant, engine):
        raise click.UsageError(f"--plant {plant} is in the way of no transfer on {engine}")


def _seed(given: int | None) -> int:
    return random.SystemRandom().randrange(SEED_MAX) if given is None else given


def command_line(options: dict[str, Any]) -> str:
    """The command that does it again."""
    words = ["tandem", "chaos"]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, tuple):
            words += [word for item in value for word in (flag, str(item))]
        elif value is not None:
            text = ",".join(sorted(value)) if isinstance(value, frozenset) else f"{value}"
            words += [flag, text.removesuffix(".0")]
    return shlex.join(words)


def _show(result: Result, as_json: bool) -> None:
    if as_json:
        print_json(result.document)
        return
    screen = console()
    screen.print(summary(result))
    for violation in result.violations[:100]:
        screen.print(f"{violation.way}: {violation.subject}: {violation.detail}")
    screen.print(f"The same again: {result.again}")


@contextmanager
def _target(options: dict[str, Any], engine: Engine) -> Iterator[tuple[Target, frozenset[str]]]:
    """What to work on, and with which faults; what was started for it is stopped."""
    asked: frozenset[str] | None = options["faults"]
    if options["url"]:
        if asked or options["plant"]:
            raise click.UsageError("with --url nothing is killed: leave out --faults and --plant")
        yield Target(urls_of(options["url"], Path())), frozenset()
    elif options["data_dir"]:
        if options["plant"] or nemesis.OWN_CLUSTER & (asked or frozenset()):
            words = ", ".join(sorted(nemesis.OWN_CLUSTER))
            raise click.UsageError(f"{words} are only for a cluster of its own: no --data-dir")
        with _cluster_in(options["data_dir"], options) as local:
            every = fitting.fitting(nemesis.DEFAULT_FAULTS, engine) - nemesis.OWN_CLUSTER
            faults = asked if asked is not None else every
            yield Target(local.urls(), local), faults
    else:
        with _own_cluster(options, _with_points(asked, options["plant"], engine)) as told:
            yield told


def _with_points(asked: frozenset[str] | None, plant: str | None, engine: Engine) -> frozenset[str]:
    """The faults that can be had here. Raises a UsageError for those that cannot."""
    is_there = (PROJECT / TEST_BUILD / "__main__.py").exists()
    wanted = fitting.fitting(nemesis.DEFAULT_FAULTS, engine) if asked is None else asked
    if plant or nemesis.LOSSES in wanted:
        # The points lead to where it shows; other faults only if they are asked for.
        wanted = frozenset({"points"}) | (asked or frozenset())
    wanted |= fitting.PLANT_FAULTS.get(plant or "", frozenset())
    if not wanted & _TEST_BUILD_FAULTS or is_there:
        return wanted
    missing = (
        f"the test build of the coordinator ({TEST_BUILD}/) is not there: it is part of a "
        "checkout, not of an installed Tandem"
    )
    if plant or asked is not None:
        raise click.UsageError(f"{missing}; leave out --plant and the fault points")
    click.echo(f"Without fault points: {missing}.", err=True)
    return wanted - _TEST_BUILD_FAULTS


@contextmanager
def _cluster_in(folder: Path, options: dict[str, Any]) -> Iterator[LocalCluster]:
    """The local cluster of a folder; it is left as it was, running or not."""
    local = LocalCluster(folder)
    ran = local.exists() and any(p["running"] for p in local.status()["processes"])
    try:
        with shown(console(stderr=True)) as report:
            local.up(_wanted(options, local.exists()), report)
        yield local
    finally:
        if not ran:
            local.down()


def _wanted(options: dict[str, Any], is_there: bool) -> Options:
    shards, coordinators = options["shards"], options["coordinators"]
    engine: Engine | None = options["engine"]
    if is_there:
        return Options(shards, coordinators, engine)
    # A ledger group is a cluster's only shard.
    default = None if engine == "eventstore" else 3
    return Options(shards or default, coordinators or 3, engine)


@contextmanager
def _own_cluster(
    options: dict[str, Any], faults: frozenset[str]
) -> Iterator[tuple[Target, frozenset[str]]]:
    """A new cluster in a temporary folder, which is kept after a violation."""
    folder = Path(tempfile.mkdtemp(prefix="tandem-chaos-"))
    points = _points(options, faults) if faults & _TEST_BUILD_FAULTS else None
    lines = Lines()
    local = LocalCluster(
        folder / "cluster",
        coordinator_module=TEST_BUILD if points else coordinators.MODULE,
        coordinator_environment=points or {},
        shard_door=lines.door if "lines" in faults else lambda name, port: port,
    )
    is_kept = False
    try:
        with shown(console(stderr=True)) as report:
            local.up(_wanted(options, False), report)
        yield Target(local.urls(), local, points, lines), faults
    except Exception:
        # A violation, or a part that could not be started: its logs and data tell more.
        is_kept = True
        raise
    finally:
        local.down(kill=True)
        lines.close()
        if is_kept:
            click.echo(f"The cluster is kept, killed, in {local.data_dir}", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _points(options: dict[str, Any], faults: frozenset[str]) -> PointsEnvironment:
    """What coordinators of the test build are started with; its code is not installed."""
    path = os.environ.get("PYTHONPATH")
    fixed = {"PYTHONPATH": f"{PROJECT}{os.pathsep}{path}" if path else str(PROJECT)}
    chance = random.Random(f"points {options['seed']}")
    return PointsEnvironment(chance, options["plant"], faults, fixed)
