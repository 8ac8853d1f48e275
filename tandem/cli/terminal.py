"""What commands share towards the person: errors with exit codes, consoles, readable amounts."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

Command = TypeVar("Command", bound=Callable[..., Any])

# A pipe or a file has no width of its own; wide enough that no line of ours is folded there.
WIDTH_WITHOUT_TERMINAL = 160

# ISO 4217: currencies whose minor unit is not a hundredth.
WITHOUT_MINOR_UNIT = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
IN_THOUSANDTHS = "BHD IQD JOD KWD LYD OMR TND"


class CommandError(click.ClickException):
    """One clear paragraph on standard error, and exit code 1: refused, or wrong."""


class UnknownOutcome(CommandError):
    """The service cannot be reached, or what became of the request is not known."""

    exit_code = 3


def console(*, stderr: bool = False) -> Console:
    """A console that shows text as it is: an id such as `{a}:key:b` is neither markup nor emoji."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """An empty table; the columns named in `right` hold numbers."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        is_number = column in right
        made.add_column(
            column,
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    return made


def readable(amount: int, currency: str) -> str:
    """An amount in minor units as a person writes it: -123456 EUR is "-1,234.56 EUR"."""
    # What is not three letters is no ISO currency: points, tokens. They are shown as they are.
    is_iso = len(currency) == 3 and currency.isalpha()
    is_whole = not is_iso or currency in WITHOUT_MINOR_UNIT.split()
    digits = 0 if is_whole else 3 if currency in IN_THOUSANDTHS.split() else 2
    whole, fraction = divmod(abs(amount), 10**digits)
    point = f".{fraction:0{digits}}" if digits else ""
    return f"{'-' if amount < 0 else ''}{whole:,}{point} {currency}"


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def data_dir_option(command: Command) -> Command:
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(".tandem"),
        show_default=True,
        envvar="TANDEM_DATA_DIR",
        help="The folder of the local cluster (or TANDEM_DATA_DIR).",
    )(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(command)
