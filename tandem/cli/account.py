"""`tandem account`: create accounts, show them and their statements."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from tandem.cli.client import (
    REACH_HINT,
    Client,
    GaveUp,
    account_path,
    ask,
    refused,
    service_options,
    urls_of,
)
from tandem.cli.terminal import UnknownOutcome, console, json_option, print_json, readable, table

# How many entries are asked for at once.
PAGE_SIZE = 100


@click.group()
def account() -> None:
    """Create accounts, show them and their statements."""


@account.command()
@click.argument("id")
@click.argument("currency")
@click.option(
    "--overdraft-limit",
    type=click.IntRange(min=0),
    help="How far below zero it may go, in minor units (cents). [default: 0]",
)
@click.option("--unlimited", is_flag=True, help="It may go below zero without limit.")
@json_option
@service_options
def create(
    id: str,
    currency: str,
    overdraft_limit: int | None,
    unlimited: bool,
    as_json: bool,
    url: tuple[str, ...],
    data_dir: Path,
) -> None:
    """Create account ID in CURRENCY. Creating it again with the same terms changes nothing.

    Money enters through an issuing account, which may go below zero without limit.
    If ID holds {...}, only the part in braces says on which shard it is kept, so that related
    accounts can share one: wallet:{c42}:EUR and wallet:{c42}:USD.

    \b
    Examples:
      tandem account create bank EUR --unlimited
      tandem account create alice EUR
      tandem account create bob EUR --overdraft-limit 50000
    """
    if unlimited and overdraft_limit is not None:
        raise click.UsageError("--unlimited and --overdraft-limit exclude each other; give one.")
    terms = {"currency": currency, "overdraft_limit": None if unlimited else overdraft_limit or 0}
    with Client(urls_of(url, data_dir)) as client:
        try:
            answer = client.persist("PUT", account_path(id), terms)
        except GaveUp as error:
            known = "It may have been created" if error.is_ambiguous else "It was not created"
            raise UnknownOutcome(
                f"{error}. {known}; the same command can safely be given again. {REACH_HINT}"
            ) from error
    if answer.status not in {200, 201} or answer.body is None:
        raise refused(answer)
    if as_json:
        print_json(answer.body)
        return
    what = "created" if answer.status == 201 else "was there already, with the same terms"
    click.echo(f"Account {id} {what}.")


@account.command()
@click.argument("id")
@json_option
@service_options
def show(id: str, as_json: bool, url: tuple[str, ...], data_dir: Path) -> None:
    """Show account ID: its balance, what of it is available, its terms and its shard."""
    with Client(urls_of(url, data_dir)) as client:
        body = ask(client, "GET", account_path(id))
    if as_json:
        print_json(body)
        return
    shown = table("", "", "")
    shown.show_header = False
    for name, value in body.items():
        if name in {"balance", "available", "overdraft_limit"}:
            limitless = "" if value is not None else "without limit"
            shown.add_row(
                name,
                "none" if value is None else str(value),
                limitless or readable(value, body["currency"]),
            )
        elif name == "as_of":
            shown.add_row(name, f"frame {value['seq']}", value["time"])
        else:
            shown.add_row(name, str(value), "")
    console().print(shown)


@account.command()
@click.argument("id")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Entries at most."
)
@click.option("--desc", is_flag=True, help="Newest first (unless given: oldest first).")
@click.option("--after", default="", help='Go on from here: the "next" of an earlier --json.')
@json_option
@service_options
def statement(
    id: str,
    limit: int,
    desc: bool,
    after: str,
    as_json: bool,
    url: tuple[str, ...],
    data_dir: Path,
) -> None:
    """Show the entries of account ID: signed amounts, and the balance after each.

    \b
    Examples:
      tandem account statement alice --desc --limit 10
      tandem account statement alice --json > alice.json
    """
    with Client(urls_of(url, data_dir)) as client:
        currency = ask(client, "GET", account_path(id))["currency"]
        pages = list(_pages(client, id, limit, desc, after))
    entries = [entry for page in pages for entry in page["entries"]]
    if as_json:
        print_json({"entries": entries, "next": pages[-1]["next"]})
        return
    _print_entries(id, currency, entries)
    if pages[-1]["next"] is not None:
        click.echo(f"There are more: --limit, or --after {pages[-1]['next']}", err=True)


def _pages(
    client: Client, account_id: str, limit: int, desc: bool, after: str
) -> Iterator[dict[str, Any]]:
    """Pages of the statement that hold `limit` entries together."""
    path = f"{account_path(account_id)}/entries?order={'desc' if desc else 'asc'}"
    cursor: str | None = after
    while cursor is not None and limit > 0:
        position = f"&after={quote(str(cursor), safe='')}" if cursor else ""
        page = ask(client, "GET", f"{path}&limit={min(limit, PAGE_SIZE)}{position}")
        limit -= len(page["entries"])
        cursor = page["next"]
        yield page


def _print_entries(account_id: str, currency: str, entries: list[dict[str, Any]]) -> None:
    if not entries:
        click.echo(f"Account {account_id} has no entries.")
        return
    right = ("minor units", "amount", "balance")
    shown = table("when (UTC)", *right, "counterparty", "transfer", right=right)
    for entry in entries:
        shown.add_row(
            # To the second; --json has it whole.
            str(entry["created_at"])[:19].replace("T", " "),
            f"{entry['amount']:+d}",
            readable(entry["amount"], currency),
            readable(entry["balance"], currency),
            str(entry["counterparty"]),
            str(entry["transfer_id"]),
        )
    console().print(shown)
