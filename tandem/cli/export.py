"""`tandem export`: the entries of a time range, as CSV or Parquet."""

import csv
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TextIO

import click

from coordinator.auditing.export import (
    SETTLED_S,
    ExportedEntry,
    NoSuchAccount,
    NotSettled,
    exported,
)
from coordinator.http.schemas import parse_time, time_text
from tandem.cli.configuration import load_settings, named_errors, sentence, settings_options
from tandem.cli.terminal import CommandError, console
from tandem.local.progress import Report, shown

COLUMNS = (
    *("account", "number", "time", "transfer_id", "amount", "balance"),
    *("currency", "counterparty", "chain"),
)
# How many are held in memory at once; a row group of Parquet.
_ROWS = 20_000


def _stamp(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """A time as a stamp in microseconds."""
    try:
        return parse_time(value)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{value!r} is no time such as 2026-11-01T00:00:00Z") from error


@click.command()
@click.option("--from", "start", callback=_stamp, required=True, help="Where the range begins.")
@click.option("--to", "end", callback=_stamp, required=True, help="Where it ends (excluded).")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "parquet"]),
    default="csv",
    show_default=True,
)
@click.option("--account", metavar="ID", help="Of this account only.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file; it has this name once it is whole.  [default: standard output]",
)
@settings_options
def export(
    start: int,
    end: int,
    kind: str,
    account: str | None,
    output: Path | None,
    config: Path | None,
    data_dir: Path,
) -> None:
    """Export all entries of a time range, as CSV (RFC 4180) or Parquet.

    The range is half open: --to 2026-12-01T00:00:00Z is all of November. It must have ended 15
    seconds ago. What is exported is final: the same range gives the same bytes for ever. So this
    writes to the shards: it raises the earliest time that accounts take further entries for. A
    ledger group gets one empty frame.

    Rows are ordered by account and number. Amounts are in the currency's minor unit, times are UTC.
    Entries have no index by time: each export reads all of them.

    \b
    Examples:
      tandem export --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z -o november.csv
      tandem export --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z --account alice
      tandem export --from ... --to ... --format parquet -o november.parquet
    """
    latest = time.time_ns() // 1000 - SETTLED_S * 1_000_000
    if end > latest:
        raise click.UsageError(
            f"--to {time_text(end)} is not settled yet: entries can still come. The latest that "
            f"can be exported now is {time_text(latest)}, {SETTLED_S} s ago."
        )
    if start >= end:
        raise click.UsageError("--from is not before --to: the range is empty.")
    if kind == "parquet" and output is None:
        raise click.UsageError("Parquet goes to a file: give --output.")
    if kind == "parquet" and not find_spec("pyarrow"):
        raise CommandError(
            "Parquet needs the package pyarrow, which is not installed: "
            "pip install 'tandem[parquet]'. Nothing was written."
        )
    write = _write_parquet if kind == "parquet" else _write_csv
    settings = load_settings(config, data_dir)
    try:
        with (
            shown(console(stderr=True)) as report,
            named_errors(),
            exported(settings, range(start, end), account, report) as entries,
        ):
            count = write(output, _counted(entries, report))
    except NotSettled as error:
        raise CommandError(sentence(error)) from error
    except NoSuchAccount as error:
        raise CommandError(f"There is no account {account}. Nothing was written.") from error
    click.echo(f"{count:,} entries were exported.", err=True)


def _counted(entries: Iterator[ExportedEntry], report: Report) -> Iterator[list[ExportedEntry]]:
    """The entries in lists, told about."""
    count = 0
    while some := list(islice(entries, _ROWS)):
        yield some
        count += len(some)
        report(f"Exporting: {count:,} entries, up to account {some[-1].account}")


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """A file beside it to write to, which gets its name when the block ends well."""
    part = output.with_name(f"{output.name}.part")
    try:
        yield part
        part.replace(output)
    except OSError as error:
        raise CommandError(f"{error.filename or part}: {error.strerror or error}.") from error


# --- CSV ------------------------------------------------------------------------------------


def _write_csv(output: Path | None, pages: Iterator[list[ExportedEntry]]) -> int:
    count = 0
    with _text(output) as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for page in pages:
            rows.writerows((*e[:2], time_text(e.stamp), *e[3:]) for e in page)
            count += len(page)
    return count


def _text(output: Path | None) -> AbstractContextManager[TextIO]:
    if output is None:
        return open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False)
    return _text_file(output)


@contextmanager
def _text_file(output: Path) -> Iterator[TextIO]:
    with _whole(output) as part, part.open("w", encoding="utf-8", newline="") as file:
        yield file


# --- Parquet --------------------------------------------------------------------------------


def _write_parquet(output: Path | None, pages: Iterator[list[ExportedEntry]]) -> int:
    assert output is not None
    # An extra, and slow to import.
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    text, number = pyarrow.string(), pyarrow.int64()
    moment = pyarrow.timestamp("us", tz="UTC")
    kinds = (text, number, moment, text, number, number, text, text, text)
    schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    count = 0
    with _whole(output) as part, ParquetWriter(part, schema, compression="zstd") as writer:
        for page in pages:
            columns = [
                pyarrow.array(values, kind)
                for values, kind in zip(zip(*page, strict=True), kinds, strict=True)
            ]
            writer.write_table(pyarrow.table(columns, schema=schema))
            count += len(page)
    return count
