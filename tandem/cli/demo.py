"""The demonstration after `scripts/run`: the sample data, an audit, and what to try next."""

import os
import shlex
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from coordinator.auditing.audit import audit
from coordinator.settings import load
from tandem.cli.audit import print_audit
from tandem.cli.client import Client, account_path, ask
from tandem.cli.configuration import named_errors
from tandem.cli.import_command import raise_stopped
from tandem.cli.import_report import print_summary, progress_of
from tandem.cli.import_result import ImportResult
from tandem.cli.import_rows import rows_of
from tandem.cli.importing import import_file
from tandem.cli.terminal import CommandError, console
from tandem.local.progress import shown

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
ACCOUNTS, TRANSFERS = "accounts.csv", "transfers.jsonl"
TRY_AMOUNT = 1250
# So many sample accounts are asked for two, one with money, on different shards.
CANDIDATES = 60


def run_demo(urls: Sequence[str], environment: Mapping[str, str]) -> None:
    """Import the sample data, audit every shard, and print what to try next.

    `environment` holds the TANDEM_... variables that lead to the shards. It may be run again: then
    everything is replayed. Raises CommandError if something could not be carried out or an
    invariant does not hold, and KeyboardInterrupt.
    """
    screen = console()
    screen.print("Sample data", style="bold")
    for name, title in ((ACCOUNTS, "accounts"), (TRANSFERS, "transfers")):
        _import(screen, SAMPLES / name, title, urls)
    screen.print("\nAudit of every shard", style="bold")
    with shown(console(stderr=True)) as report, named_errors():
        # The cluster's own addresses win over what the caller's environment says of another one.
        result = audit(load(environ={**os.environ, **environment}), report)
    print_audit(result)
    if result.violations:
        raise CommandError(f"{len(result.violations):,} violations were found.")
    _print_what_to_try(screen, urls)


def _import(screen: Console, path: Path, title: str, urls: Sequence[str]) -> None:
    if not path.is_file():
        raise CommandError(
            f"There is no sample file {path}: the demonstration runs from a clone of the project, "
            "installed with pip install -e."
        )
    with progress_of(screen, f"Importing sample {title}") as progress:
        result = import_file(path, urls, on_progress=progress)
    print_summary(screen, result)
    if result.interruption:
        raise result.interruption
    if result.stopped:
        raise_stopped(result)
    if _is_second_run(result):
        screen.print(
            f"All of these {title} were here from an earlier run: each line was recognised, and "
            "nothing was done twice.",
            soft_wrap=True,
        )


def _is_second_run(result: ImportResult) -> bool:
    return result.committed == 0 and result.replayed > 0


def _print_what_to_try(screen: Console, urls: Sequence[str]) -> None:
    screen.print("\nTry it", style="bold")
    with Client(urls) as client:
        pair = _pair(client)
    lines = [f"Coordinators:  {'  '.join(urls)}", f"API, described: {urls[0]}/docs"]
    if pair:
        source, destination = pair
        lines += [
            "",
            f"Move money from {source['id']} (on shard {source['shard']}) "
            f"to {destination['id']} (on shard {destination['shard']}):",
            "",
            f"  {_curl(urls[0], source, destination)}",
            "",
            "The same line again moves nothing, since its Idempotency-Key is the same. To look:",
            "",
            *(f"  {_statement(urls[0], account)}" for account in pair),
            "",
            ".venv/bin/tandem --help says what else there is.",
        ]
    for line in lines:
        screen.print(line, soft_wrap=True)


def _pair(client: Client) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Two wallets of one currency, of which the first can pay; on different shards, if there are
    such.
    """
    payers: dict[str, dict[str, Any]] = {}
    on_one_shard = None
    for account_id in _wallets():
        account = ask(client, "GET", account_path(account_id))
        for payer in payers.values():
            if payer["shard"] != account["shard"]:
                return payer, account
            on_one_shard = on_one_shard or (payer, account)
        if account["available"] >= TRY_AMOUNT:
            payers.setdefault(account["shard"], account)
    return on_one_shard


def _wallets() -> Iterator[str]:
    with (SAMPLES / ACCOUNTS).open("rb") as stream:
        _, rows = rows_of(stream, "csv", ACCOUNTS)
        wallets = (
            str(row.item["id"])
            for row in rows
            if row.item and row.item["id"].startswith("wallet:") and row.item["currency"] == "EUR"
        )
        for account_id, _ in zip(wallets, range(CANDIDATES), strict=False):
            yield account_id


def _statement(url: str, account: dict[str, Any]) -> str:
    name = shlex.quote(account["id"])
    return f".venv/bin/tandem account statement {name} --desc --limit 5 --url {url}"


def _curl(url: str, source: dict[str, Any], destination: dict[str, Any]) -> str:
    body = (
        f'{{"source": "{source["id"]}", "destination": "{destination["id"]}", '
        f'"amount": {TRY_AMOUNT}, "currency": "{source["currency"]}"}}'
    )
    key = f"try-{uuid.uuid4().hex[:8]}"
    return (
        f"curl -sS {url}/v1/transfers -H 'Content-Type: application/json' "
        f"-H 'Idempotency-Key: {key}' -d {shlex.quote(body)}"
    )
