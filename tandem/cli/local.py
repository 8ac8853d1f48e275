"""`tandem local`: a whole cluster on this machine, and `run`, which is what scripts/run calls."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import click

from tandem.cli.terminal import (
    Command,
    CommandError,
    console,
    data_dir_option,
    json_option,
    print_json,
    table,
)
from tandem.local.cluster import COORDINATORS, SHARDS, LocalCluster, Options
from tandem.local.errors import LocalError
from tandem.local.processes import INTERRUPTS
from tandem.local.progress import shown
from tandem.local.servers import Engine

# How often a cluster in the foreground is looked at.
WATCH_S = 1.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, a request to end, or the end of the terminal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """Let every way to be interrupted unwind the block, so that what it started is stopped."""

    def unwind(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, unwind) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def guarded(command: Command) -> Command:
    """Errors as one clear paragraph, an interruption as the exit code that shells expect."""

    @wraps(command)
    def call(*arguments: Any, **options: Any) -> None:
        try:
            with interruptible():
                command(*arguments, **options)
        except LocalError as error:
            raise CommandError(str(error)) from error
        except Interrupted as interruption:
            click.echo("Interrupted.", err=True)
            raise SystemExit(128 + interruption.number) from None

    return call  # type: ignore[return-value]


def cluster_options(command: Command) -> Command:
    """What a cluster is made of; the order is that of `--help`."""
    options: list[Callable[[Command], Command]] = [
        click.option(
            "--shards",
            type=click.IntRange(1, 64),
            help=f"How many shards.  [default: {SHARDS}, or as many as the folder holds]",
        ),
        click.option(
            "--coordinators",
            type=click.IntRange(1, 16),
            help=f"How many coordinators.  [default: {COORDINATORS}, or as the folder holds]",
        ),
        click.option(
            "--engine",
            type=click.Choice(["mysql", "mariadb", "eventstore"]),
            help="What a shard runs on.  [default: mysql, or what the folder holds]",
        ),
        data_dir_option,
        click.option(
            "--port",
            type=click.IntRange(1, 65_535),
            help="The first of the ports: coordinators, then ZooKeeper, then shards.  "
            "[default: 8080, or where enough ports are free]",
        ),
        click.option(
            "--monitoring",
            is_flag=True,
            help="Add a Prometheus that watches the coordinators; from then on it belongs to the "
            "cluster.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def local() -> None:
    """Start and stop a whole cluster on this machine.

    ZooKeeper, MySQL (or MariaDB) shards s1, s2, ... and coordinators c1, c2, ... listen on
    127.0.0.1 and keep everything in one data folder; with --monitoring a Prometheus watches them.
    The servers are those that the folder TANDEM_SERVERS holds, or those on the PATH; on Debian and
    its relatives missing ones are downloaded into the project's folder .servers, without root.
    """


@local.command()
@cluster_options
@guarded
def up(
    shards: int | None,
    coordinators: int | None,
    engine: Engine | None,
    data_dir: Path,
    port: int | None,
    monitoring: bool,
) -> None:
    """Start the cluster and return when it is ready; what runs already keeps running."""
    cluster = LocalCluster(data_dir)
    with shown(console(stderr=True)) as report:
        cluster.up(Options(shards, coordinators, engine, port, monitoring), report)
    tell_where(cluster)


@local.command()
@data_dir_option
@guarded
def down(data_dir: Path) -> None:
    """Stop everything; the data stay, and `up` starts with them again."""
    cluster = LocalCluster(data_dir)
    with shown(console(stderr=True)) as report:
        cluster.down(report=report)
    click.echo(f"Nothing of the cluster in {cluster.data_dir} runs.")


@local.command()
@data_dir_option
@json_option
@guarded
def status(data_dir: Path, as_json: bool) -> None:
    """Show what there is and what runs. --json also gives the shards' administrator."""
    told = LocalCluster(data_dir).status()
    if as_json:
        print_json(told)
        return
    rows = table("name", "kind", "address", "pid", "", right=("pid",), title=told["data_dir"])
    for process in told["processes"]:
        # Without the password of a dsn.
        address = process.get("url") or f"127.0.0.1:{process['port']}"
        running = "running" if process["running"] else "stopped"
        pid = str(process["pid"] or "")
        rows.add_row(process["name"], process["kind"], address, pid, running)
    console().print(rows)


@local.command()
@click.argument("name")
@data_dir_option
@guarded
def start(name: str, data_dir: Path) -> None:
    """Start the process NAME (zk, s1, c1, ...) and return when it is ready."""
    with shown(console(stderr=True)) as report:
        LocalCluster(data_dir).start(name, report)
    click.echo(f"{name} is ready.")


@local.command()
@click.argument("name")
@click.option("--kill", is_flag=True, help="End it at once, as a crash would (SIGKILL).")
@data_dir_option
@guarded
def stop(name: str, kill: bool, data_dir: Path) -> None:
    """Stop the process NAME (zk, s1, c1, ...)."""
    with shown(console(stderr=True)) as report:
        LocalCluster(data_dir).stop(name, kill, report)
    click.echo(f"{name} has ended.")


@local.command()
@click.argument("name")
@data_dir_option
@guarded
def rebuild(name: str, data_dir: Path) -> None:
    """Make what the read side NAME (s1-reads) keeps anew, while its node serves.

    It is stopped, its files are removed, and it is started: it reads the node's list from the first
    frame. Transfers go on; reads wait for it, or are answered 503, until it has come to the end.
    """
    with shown(console(stderr=True)) as report:
        LocalCluster(data_dir).rebuild(name, report)
    click.echo(f"{name} runs, and makes what it keeps anew from the list.")


@local.command("run")
@cluster_options
@click.option("--detach", is_flag=True, help="Return when everything is ready, and leave it up.")
@click.option("--no-demo", is_flag=True, help="Import no samples.")
@guarded
def run_command(
    shards: int | None,
    coordinators: int | None,
    engine: Engine | None,
    data_dir: Path,
    port: int | None,
    monitoring: bool,
    detach: bool,
    no_demo: bool,
) -> None:
    """Start the cluster, move sample money, and stay up until Ctrl-C stops everything."""
    options = Options(shards, coordinators, engine, port, monitoring)
    run(LocalCluster(data_dir), options, detach=detach, demo=not no_demo)


def run(cluster: LocalCluster, options: Options, *, detach: bool, demo: bool) -> None:
    """Start, show, wait, stop. Whatever ends it, nothing that it started keeps running; only a
    detached cluster does, once everything has succeeded."""
    ran_before = cluster.exists() and any(p["running"] for p in cluster.status()["processes"])
    ready = False
    try:
        with shown(console(stderr=True)) as report:
            cluster.up(options, report)
        tell_where(cluster)
        if demo:
            from tandem.cli.demo import run_demo

            run_demo(cluster.urls(), cluster.environment())
        ready = True
        if detach:
            click.echo(f"It stays up until: tandem local down --data-dir {cluster.data_dir}")
        else:
            click.echo("It stays up until you press Ctrl-C.")
            watch(cluster)
    except Interrupted:
        if not ready:
            raise
    finally:
        # After a failure `up` has stopped what it started itself; what ran before is not ours.
        if (ready and not detach) or not (ready or ran_before):
            take_down(cluster)


def tell_where(cluster: LocalCluster) -> None:
    """Say where the cluster and its monitoring are."""
    click.echo(f"The cluster in {cluster.data_dir} is ready: {', '.join(cluster.urls())}")
    click.echo(f"To see it: {cluster.urls()[0]}/console")
    if url := cluster.prometheus_url():
        click.echo(f"Prometheus: {url}")


def watch(cluster: LocalCluster) -> None:
    """Return when nothing of the cluster runs any more; tell of each process that has crashed."""
    told: set[int] = set()
    while True:
        time.sleep(WATCH_S)
        running = {p["name"]: p["running"] for p in cluster.status()["processes"]}
        for name, pid in cluster.crashed().items():
            if pid not in told:
                told.add(pid)
                click.echo(f"{name} has ended unexpectedly; see {cluster.log(name)}", err=True)
        if not any(running.values()):
            return


def take_down(cluster: LocalCluster) -> None:
    """Stop everything in good order; interrupted once more, at once."""
    try:
        with shown(console(stderr=True)) as report:
            cluster.down(report=report)
    except KeyboardInterrupt:
        cluster.down(kill=True)
