"""`tandem trial-balance`: what all accounts of a ledger group had together, at any moment."""

from pathlib import Path
from urllib.parse import urlencode

import click

from tandem.cli.client import Client, ask, service_options, urls_of
from tandem.cli.terminal import CommandError, console, json_option, print_json, readable, table

# The sums of a large ledger take some seconds, and others may be made first.
_TIMEOUT_S = 60.0


@click.command("trial-balance")
@click.option("--at", metavar="TIME", help="As of this moment.  [default: now]")
@json_option
@service_options
def trial_balance(at: str | None, as_json: bool, url: tuple[str, ...], data_dir: Path) -> None:
    """Sum up all accounts of a ledger group, now or as they were at a time.

    For each currency: how many accounts there were, what was taken from them and what was given to
    them in all, and what they had together. What was taken was given, so the two are equal, and the
    last is zero. It is final: the same TIME has the same sums for ever. Whether every single entry
    is right, `tandem audit` says, which also sums up clusters of other shards.

    \b
    Examples:
      tandem trial-balance
      tandem trial-balance --at 2026-11-30T23:59:59.999999Z

    \b
    Exit codes:
      0  the books balance
      1  they do not, or it was refused
      3  the service cannot be reached
    """
    query = f"?{urlencode({'at': at})}" if at is not None else ""
    with Client(urls_of(url, data_dir), answer_timeout_s=_TIMEOUT_S) as client:
        body = ask(client, "GET", f"/v1/trial-balance{query}")
    if as_json:
        print_json(body)
    else:
        columns = ("currency", "accounts", "debits", "credits", "balances")
        made = table(*columns, right=columns[1:], title=f"As of {body['at']}")
        for each in body["currencies"]:
            sums = (readable(each[name], each["currency"]) for name in columns[2:])
            made.add_row(each["currency"], f"{each['accounts']:,}", *sums)
        console().print(made)
    wrong = [
        each["currency"]
        for each in body["currencies"]
        if each["debits"] != each["credits"] or each["balances"]
    ]
    if wrong:
        raise CommandError(
            f"The books do not balance in {', '.join(wrong)}: `tandem audit` and `tandem "
            "eventstore verify` say where."
        )
