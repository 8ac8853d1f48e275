"""`scripts/lab`: the same load and the same faults through each way of moving money, compared."""

import importlib
import os
import platform
import random
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click
import msgspec

from lab.report import comparison_table
from lab.result import Comparison, Machine, Outcome
from lab.run import EACH, Wanted, check_known, run
from lab.ways import NAIVE, WAYS, Way
from lab.words import when_to_take_which
from tandem.chaos.report import Screen, clock_since
from tandem.cli.configuration import named_errors
from tandem.cli.local import guarded
from tandem.cli.terminal import CommandError, console
from tandem.local.progress import shown

SEED_MAX = 10**9
REPORT = "tandem-lab.html"
SECONDS_MIN = 5


def _ways(ctx: click.Context, param: click.Parameter, value: str) -> list[Way]:
    """Names of ways, separated by commas; each runs once."""
    names = list(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    unknown = [name for name in names if name not in WAYS]
    if unknown or not names:
        raise click.BadParameter(f"{', '.join(unknown) or 'none'}; allowed: {', '.join(WAYS)}")
    return [WAYS[name] for name in names]


@click.command()
@click.option("--seed", type=click.IntRange(0), help="[default: another each time]")
@click.option(
    "--seconds",
    type=click.FloatRange(SECONDS_MIN),
    default=32,
    show_default=True,
    help="How long for each way, besides the time to set up and to look at everything.",
)
@click.option(
    "--ways",
    callback=_ways,
    default=",".join(WAYS),
    show_default=True,
    help="Which ways, in this order.",
)
@click.option("--clients", type=click.IntRange(1, 256), default=16, show_default=True)
@click.option("--accounts", type=click.IntRange(4, 1000), default=200, show_default=True)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path(REPORT),
    show_default=True,
    help="Where to write the page.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all figures as JSON too.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="A new folder for what the servers keep; it stays.  [default: a temporary one, which is "
    "removed, and kept after a failure]",
)
@guarded
def lab(
    seed: int | None,
    seconds: float,
    ways: list[Way],
    clients: int,
    accounts: int,
    report: Path,
    json_file: Path | None,
    data_dir: Path | None,
) -> None:
    """Compare ways of moving money between shards, under the same load and the same faults.

    \b
    naive  balances in two Redis nodes, two plain updates, ZooKeeper for the map
    xa     two-phase commit         tcc  try, confirm or cancel         saga  and compensations
    eventstore  event sourcing: all accounts in one ledger group, a node with its read side

    Each way gets new accounts, on real servers. While clients move money, coordinators are killed,
    shards are away, and shards are slow: for each way at the same times. A group is one shard; its
    read side is killed too. Another client reads all balances. In the end the books are compared
    with what the clients were told. A table is printed, and a page with plots is written that needs
    nothing but a browser.

    \b
    Examples:
      scripts/lab
      scripts/lab --seed 7 --seconds 20 --ways naive,xa
      scripts/lab --report comparison.html --json comparison.json

    A seed gives the same faults and the same wishes again; what they meet is up to time. Exits with
    1 if a way other than the naive one loses or doubles anything.
    """
    check_known(ways)
    _check_packages(ways)
    _check_folders(report, json_file, data_dir)
    seed = random.SystemRandom().randrange(SEED_MAX) if seed is None else seed
    wanted = Wanted(ways, seed, seconds, clients, accounts)
    again = command_line(wanted)
    screen_console = console(stderr=True)
    screen = Screen(screen_console, clock_since(time.monotonic()))
    screen_console.print(f"seed {seed}; the same again: {again}")
    load_average = round(os.getloadavg()[0], 2)
    at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    with named_errors(), _folder(data_dir) as folder, shown(screen_console) as progress:

        def tell(text: str) -> None:
            screen.tell(text)
            if screen_console.is_terminal:
                # The line that moves says it too, or it would say what was waited for before.
                progress(text)

        outcomes = run(wanted, folder, progress, tell)
    machine = _machine(load_average)
    found = Comparison(seed, seconds, clients, accounts, EACH, at, again, machine, outcomes)
    _write(found, report, json_file)
    console().print(comparison_table(found))
    for sentence in when_to_take_which(outcomes):
        click.echo(sentence)
    click.echo(f"The page with the comparison: {report}")
    _complain(outcomes)


def command_line(wanted: Wanted) -> str:
    """The command that does it again."""
    options = {
        "seed": wanted.seed,
        "seconds": f"{wanted.seconds:g}",
        "ways": ",".join(way.name for way in wanted.ways),
        "clients": wanted.clients,
        "accounts": wanted.accounts,
    }
    return shlex.join(["scripts/lab", *(f"--{name}={text}" for name, text in options.items())])


def _check_packages(ways: list[Way]) -> None:
    """Before anything is started. Raises CommandError."""
    needed = ["matplotlib"]
    needed += ["redis"] if any(way.is_naive for way in ways) else []
    needed += ["numpy", "numba"] if any(way.is_group for way in ways) else []
    for name in needed:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise CommandError(
                f"the laboratory needs {name}, which is not installed: call scripts/lab, which "
                "installs all that it needs. Nothing was started."
            ) from error


def _check_folders(report: Path, json_file: Path | None, data_dir: Path | None) -> None:
    """Raises a UsageError for what could not be written in the end."""
    for file in (report, json_file):
        if file and not file.absolute().parent.is_dir():
            raise click.UsageError(f"there is no folder {file.absolute().parent}")
    if data_dir and data_dir.exists() and any(data_dir.iterdir()):
        raise click.UsageError(f"{data_dir} is not empty; --data-dir names a new folder")


@contextmanager
def _folder(data_dir: Path | None) -> Iterator[Path]:
    """Where the servers keep their data; a temporary one is kept after a failure only."""
    if data_dir:
        data_dir.mkdir(parents=True, exist_ok=True)
        yield data_dir.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="tandem-lab-"))
    try:
        yield folder
    except Exception:
        click.echo(f"What the servers have written is kept in {folder}", err=True)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _machine(load_average: float) -> Machine:
    return Machine(
        cores=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        cpu=_cpu(),
        load_average=load_average,
        python=platform.python_version(),
        tandem=version("tandem"),
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _write(found: Comparison, report: Path, json_file: Path | None) -> None:
    # Here, since it draws, with a package that only the laboratory needs.
    from lab.page import page

    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    report.write_text(page(found))


def _complain(outcomes: list[Outcome]) -> None:
    """Raises CommandError if a way is wrong of which that is not expected."""
    wrong = [o.title for o in outcomes if o.way != NAIVE and not o.is_right]
    if wrong:
        raise CommandError(f"money was lost or doubled by: {', '.join(wrong)}; see the page")


if __name__ == "__main__":
    lab()
