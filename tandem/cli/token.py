"""`tandem token`: tokens for those who call the service."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import UnsupportedOperation
from pathlib import Path

import click

from coordinator.security.tokens import Scope, TokensError, add, new_token, parse, table_of
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
@click.option(
    "--certificate",
    metavar="SHA256",
    help="The token is good only with the client's certificate of this SHA-256 fingerprint.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A new file for the token, which its owner alone can read, instead of standard output.",
)
def new(
    name: str,
    scopes: tuple[str, ...],
    days: int | None,
    rate: float | None,
    file: Path | None,
    certificate: str | None,
    out: Path | None,
) -> None:
    """Make a token called NAME and print it once: Tandem keeps its hash only.

    It is the only thing on standard output: `tandem token new ... > secret` leaves a file that is
    closed to others, as --out does.
    """
    made = new_token()
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    wanted = [Scope(text) for text in dict.fromkeys(scopes)]
    try:
        table = table_of(name, made, wanted, expires, rate, certificate)
        parse(table)
        with _told(made, out):
            if file:
                add(file, name, table)
                click.echo(f"{name} is in {file} now.", err=True)
            else:
                click.echo(f"For the file that access.tokens_file names:\n\n{table}", err=True)
    except TokensError as error:
        raise CommandError(f"{error}.") from error


@contextmanager
def _told(secret: str, out: Path | None) -> Iterator[None]:
    """A block that makes the token known to the service; what cannot be told is not made."""
    if out is None:
        _close_to_others()
        yield
        click.echo("The token, shown this once:", err=True)
        click.echo(secret)
        return
    no_token = "{} cannot be written: {}; no token was made."
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(no_token.format(out, error)) from None
    try:
        with open(descriptor, "w") as opened:
            opened.write(f"{secret}\n")
        yield
    except BaseException as error:
        out.unlink()
        if isinstance(error, OSError):
            raise CommandError(no_token.format(out, error)) from None
        raise
    click.echo(f"The token is in {out}, which its owner alone can read.", err=True)


def _close_to_others() -> None:
    """If standard output is a file, let its owner alone read it, before anything is in it."""
    try:
        descriptor = sys.stdout.fileno()
    except UnsupportedOperation:
        return
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o077:
        return
    try:
        os.fchmod(descriptor, found.st_mode & 0o700)
        # There are places where everything is everybody's.
        if os.fstat(descriptor).st_mode & 0o077:
            raise OSError("its mode stays as it is")
    except OSError as error:
        raise CommandError(
            "standard output is a file that others can read, and that cannot be changed "
            f"({error}): no token was made. Name a new file with --out."
        ) from None
    click.echo("The file of standard output is readable by its owner alone now.", err=True)
