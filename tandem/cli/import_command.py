"""`tandem import`."""

from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console

from tandem.cli.client import service_options, urls_of
from tandem.cli.import_report import print_summary, progress_of, report_file
from tandem.cli.import_result import ImportResult
from tandem.cli.import_rows import Format
from tandem.cli.importing import CHUNK_ROWS, PATIENCE_S, import_file
from tandem.cli.terminal import CommandError, UnknownOutcome, console


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--format", type=click.Choice(["csv", "jsonl"]), help="Unless the name tells it.")
@click.option("--name", help="Stands for the file's name in keys; needed for standard input.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every line that was not carried out to this CSV file.",
)
@click.option(
    "--chunk",
    type=click.IntRange(1, 10_000),
    default=CHUNK_ROWS,
    show_default=True,
    help="Lines a request carries.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Requests at once. Above 1 the order of lines is not kept.",
)
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(min=1, max=86400),
    default=PATIENCE_S,
    show_default=True,
    help="Seconds to go on sending while nothing is settled.",
)
@service_options
def import_(
    file: Path,
    format: Format | None,
    name: str | None,
    report: Path | None,
    chunk: int,
    parallel: int,
    patience_s: float,
    url: tuple[str, ...],
    data_dir: Path,
) -> None:
    """Import the accounts or transfers in FILE: CSV or JSON Lines; "-" is standard input.

    \b
    Accounts:  id, currency, and if wanted overdraft_limit (empty, null or "unlimited" is
               without limit; where there is no such column it is 0)
    Transfers: source, destination, amount (a whole number of the minor unit), currency, and if
               wanted key, metadata (a JSON object)

    CSV names its columns in the first line; in JSON Lines each line is an object with these
    fields. A record is one line, in UTF-8. Files of any size are read line by line.

    A transfer without a key gets NAME:LINE, made of the file's name and the line's number. So an
    import that broke off is simply run again: what was carried out is recognised (replayed), and
    nothing is done twice. For the same reason do not insert or remove lines between two runs,
    and give next month's file another name: the same name and line is the same transfer.

    Lines are carried out in the order of the file. A line that is malformed is refused by itself
    and never sent. A line that cannot be carried out yet is sent again, with growing
    pauses; if it cannot be settled in time the import stops, since later lines may depend on it.

    \b
    Examples:
      tandem import samples/accounts.csv
      tandem import samples/transfers.jsonl --report refused.csv
      zcat payroll.csv.gz | tandem import - --format csv --name payroll-2026-11.csv

    \b
    Exit codes:
      0  every line was carried out, now or before, or refused by a rule about money or accounts
         (insufficient funds and the like; these are in the summary and the report)
      1  lines were malformed or could not be settled, or the file cannot be imported at all
      2  the command was not used rightly
      3  the service could not be reached, or the import was stopped
    """
    if str(file) == "-" and not name:
        raise click.UsageError("Standard input needs --name: keys are made of it.")
    if str(file) == "-" and not format:
        raise click.UsageError("Standard input needs --format csv or --format jsonl.")
    urls = urls_of(url, data_dir)
    screen = console()
    screen.print(f"Importing {file} into the service at {', '.join(urls)}", soft_wrap=True)
    with ExitStack() as stack:
        written = stack.enter_context(report_file(report, file)) if report else None
        progress = stack.enter_context(progress_of(screen, file.name))
        result = import_file(
            file,
            urls,
            parallel=parallel,
            chunk=chunk,
            format=format,
            name=name,
            patience_s=patience_s,
            on_progress=progress,
            on_refused=written.write if written else lambda refused: None,
        )
    _conclude(screen, result, report)


def _conclude(screen: Console, result: ImportResult, report: Path | None) -> None:
    """Print the summary, and raise where the exit code is not 0."""
    print_summary(screen, result)
    if result.reasons and report:
        click.echo(f"Every line that was not carried out is in {report}.")
    elif result.reasons:
        click.echo("For all of these lines: --report FILE.")
    if result.stopped:
        raise_stopped(result)
    if result.malformed:
        raise CommandError(
            f"{result.malformed:,} lines were malformed and not carried out. Mend them in place "
            "and import the file again: the others are recognised as done."
        )


def raise_stopped(result: ImportResult) -> None:
    """Say where the import stopped and how to go on."""
    where = f" at line {result.stopped_line}" if result.stopped_line else ""
    error = UnknownOutcome if result.is_unreachable or result.interruption else CommandError
    raise error(
        f"The import stopped{where}: {result.stopped}. Run it again in the same way: what was "
        "carried out is recognised, and nothing is done twice."
    )
