"""`tandem token`: tokens for those who call the service."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from coordinator.access import Scope, TokensError, add, new_token, table_of
from tandem.cli.terminal import CommandError


@click.group()
def token() -> None:
    """Make tokens for those who call the service.

    They stand, as hashes, in the file that access.tokens_file names. A coordinator reads it again
    within a second when it changes; to take a token back, delete its table.
    """


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="What it may do; repeat it for more. None includes another.",
)
@click.option("--days", type=click.IntRange(1, 3650), help="After so many days it is not good.")
@click.option(
    "--rate",
    type=click.FloatRange(0, 1_000_000, min_open=True),
    help="Requests, and items of batches, a second.",
)
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of tokens to add it to; made if it is not there. Without it, what the file has "
    "to say is printed.",
)
def new(
    name: str, scopes: tuple[str, ...], days: int | None, rate: float | None, file: Path | None
) -> None:
    """Make a token called NAME and print it, this once: nobody can find it out again.

    It is the only thing on standard output: tandem token new ... > secret.
    """
    made = new_token()
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    wanted = [Scope(text) for text in dict.fromkeys(scopes)]
    try:
        table = table_of(name, made, wanted, expires, rate)
        if file:
            add(file, name, table)
    except TokensError as error:
        raise CommandError(f"{error}.") from error
    if file:
        click.echo(f"{name} is in {file} now. Its token, shown this once:", err=True)
    else:
        click.echo(f"For the file that access.tokens_file names:\n\n{table}", err=True)
        click.echo("The token, shown this once:", err=True)
    click.echo(made)
