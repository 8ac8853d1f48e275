"""`tandem audit`: every invariant, across all shards; or one account's history, recomputed."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import click

from coordinator.auditing.anchors import BrokenAnchors
from coordinator.auditing.audit import AuditResult
from coordinator.auditing.audit import audit as run_audit
from coordinator.auditing.history import History, account_history, accounts_ahead
from coordinator.auditing.shard_audit import STAMPED_AHEAD
from coordinator.http.schemas import time_text
from coordinator.settings import Settings
from ledger.audit import Checked, Violation
from tandem.cli.configuration import load_settings, named_errors, settings_options
from tandem.cli.terminal import (
    CommandError,
    UnknownOutcome,
    console,
    json_option,
    print_json,
    table,
)
from tandem.local.progress import shown

log = logging.getLogger(__name__)

# Entries in one table of a history: more would make the columns wait for each other for long.
_PAGE = 1000


@click.command()
@click.option("--account", metavar="ID", help="Recompute this account's history, and print it.")
@click.option(
    "--anchor",
    type=click.Path(dir_okay=False, path_type=Path),
    help="If all is well, note in this file where every account's chain ends.",
)
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check that every chain passes through what this file has noted.",
)
@click.option(
    "--ahead", is_flag=True, help="List the accounts that are stamped ahead of their shard's clock."
)
@json_option
@settings_options
def audit(
    account: str | None,
    anchor: Path | None,
    against: Path | None,
    ahead: bool,
    as_json: bool,
    config: Path | None,
    data_dir: Path,
) -> None:
    """Check every invariant across all shards, on a system that is in use.

    For each currency the balances add up to zero; a balance is the sum of its account's entries
    and within its limit; a transfer has all its entries or none, or a row of the phase table says
    that it is unfinished; what is held is what unfinished transfers have reserved; each entry is
    what was written, as its chain proves; and what else must always hold. It reads the shards
    themselves, as config/tandem.toml and the TANDEM_... variables say, or those of the local
    cluster in --data-dir, and changes nothing.

    A chain cannot show that all of it was written anew. So note now and then where the chains end
    (--anchor), keep the file out of reach of those who can write to the shards, and check against
    it later (--against).

    Each violation is named.

    \b
    Exit codes:
      0  every invariant holds
      1  there is a violation
      2  the command was not used rightly
      3  it could not be checked, or not all of it: nothing is known

    \b
    Examples:
      tandem audit
      tandem audit --anchor anchors-2026-11-25.jsonl
      tandem audit --against anchors-2026-11-25.jsonl
      tandem audit --account alice
      tandem audit --ahead
    """
    if ((account or ahead) and (anchor or against)) or (account and ahead):
        raise click.UsageError(
            "--account shows one account, --ahead lists some; --anchor and --against are for all."
        )
    settings = load_settings(config, data_dir)
    if account:
        _audit_one(settings, account, as_json)
        return
    if ahead:
        _list_ahead(settings, as_json)
        return
    with shown(console(stderr=True)) as report, _checked(), named_errors(), _named_files():
        result = run_audit(settings, report, anchor=anchor, against=against, apart=True)
    if as_json:
        print_json(_document(result))
    else:
        print_audit(result)
        if result.anchors:
            click.echo(
                f"{anchor} notes where {result.anchors.accounts:,} chains end. Keep it where the "
                f"shards' administrators cannot write; its digest is {result.anchors.sha256}."
            )
    if result.violations:
        unwritten = f" {anchor} was not written." if anchor else ""
        raise CommandError(f"{len(result.violations):,} violations were found.{unwritten}")


@contextmanager
def _checked() -> Iterator[None]:
    """What cannot be read tells nothing of the books: it is not to look like a violation."""
    try:
        yield
    except CommandError as error:
        raise UnknownOutcome(error.message) from error
    except (click.ClickException, click.Abort, click.exceptions.Exit):
        raise
    except Exception as error:
        log.exception("the audit met a bug")
        raise UnknownOutcome(f"It could not be checked, the audit broke: {error!r}.") from error


@contextmanager
def _named_files() -> Iterator[None]:
    try:
        yield
    except BrokenAnchors as error:
        raise CommandError(f"{error}. Nothing was checked.") from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}.") from error


def _document(result: AuditResult) -> dict[str, Any]:
    document: dict[str, Any] = {
        "violations": [
            {"rule": v.rule, "shard": v.shard, "subject": v.subject, "detail": v.detail}
            for v in result.violations
        ],
        "summary": result.summary,
    }
    if result.anchors:
        document["anchors"] = result.anchors
    return document


def print_audit(result: AuditResult) -> None:
    """What was looked at, and each violation."""
    screen = console()
    looked_at = table("looked at", "count", right=("count",))
    for name, count in result.summary.items():
        looked_at.add_row(name.replace("_", " "), f"{count:,}")
    screen.print(looked_at)
    if stamped := result.summary.get(STAMPED_AHEAD):
        screen.print(f"{stamped:,} accounts are stamped ahead of the clock: tandem audit --ahead")
    if not result.violations:
        screen.print("Every invariant holds.")
        return
    found = table("rule", "shard", "subject", "what is wrong")
    for violation in result.violations:
        found.add_row(violation.rule, violation.shard or "all", violation.subject, violation.detail)
    screen.print(found)


# --- accounts stamped ahead -----------------------------------------------------------------


def _list_ahead(settings: Settings, as_json: bool) -> None:
    with _checked(), named_errors():
        found = accounts_ahead(settings)
    if as_json:
        print_json([{"account": a, "shard": shard, "until": _when(s)} for a, shard, s in found])
        return
    if not found:
        click.echo("No account is stamped ahead of the clock.")
        return
    shown = table("account", "shard", "stamped until (UTC)")
    for id_, shard, stamp in found:
        shown.add_row(id_, shard, _when(stamp))
    console().print(shown)
    click.echo("What that means and what to do: docs/operations/clock-ahead.md")


# --- one account ----------------------------------------------------------------------------


def _audit_one(settings: Settings, id_: str, as_json: bool) -> None:
    with _checked(), named_errors(), account_history(settings, id_) as history:
        if history is None:
            raise UnknownOutcome(f"There is no account {id_}.")
        wrong = _print_as_json(history) if as_json else _print_history(history)
    if wrong:
        raise CommandError(f"{wrong:,} violations were found.")


def _print_history(history: History) -> int:
    """Tables of the entries; gives how many violations there are."""
    wrong = 0
    while some := list(islice(history.entries, _PAGE)):
        right = ("number", "amount", "balance", "recomputed")
        shown = table("number", "when (UTC)", *right[1:], "counterparty", "verdict", right=right)
        for entry, total, violations in some:
            wrong += len(violations)
            shown.add_row(
                str(entry.number),
                _when(entry.stamp)[:-1].replace("T", " "),
                f"{entry.amount:+d}",
                str(entry.balance),
                str(total),
                entry.counterparty,
                _verdict(violations),
            )
        console().print(shown)
    account, end = history.account, history.end
    click.echo(
        f"Account {account.id} on {history.shard}: {account.entry_count:,} entries, balance "
        f"{account.balance} {account.currency}, {account.held} held, {account.expected} expected, "
        f"{account.status}: {_verdict(end)}"
    )
    for phase in history.unfinished:
        held = "held" if phase.is_reserving else "not held"
        click.echo(
            f"Transfer {phase.transfer} from it by {phase.protocol} is {phase.phase}: "
            f"{phase.amount} {held}"
        )
    for step in history.tried:
        click.echo(f"Transfer {step.transfer} to it is {step.state}: {step.amount} expected")
    return wrong + len(end)


def _print_as_json(history: History) -> int:
    entries = [_entry(checked) for checked in history.entries]
    account, end = history.account, history.end
    print_json(
        {
            "account": account._asdict(),
            "shard": history.shard,
            "violations": _violations(end),
            "unfinished": [phase._asdict() for phase in history.unfinished],
            "tried": [step._asdict() for step in history.tried],
            "entries": entries,
        }
    )
    return sum(len(entry["violations"]) for entry in entries) + len(end)


def _entry(checked: Checked) -> dict[str, Any]:
    entry, total, violations = checked
    return {
        "number": entry.number,
        "time": _when(entry.stamp),
        "transfer_id": entry.transfer,
        "amount": entry.amount,
        "balance": entry.balance,
        "recomputed": total,
        "counterparty": entry.counterparty,
        "chain": entry.chain,
        "violations": _violations(violations),
    }


def _when(stamp: int) -> str:
    try:
        return time_text(stamp)
    except OverflowError:
        # It was changed from outside.
        return f"{stamp} us"


def _violations(found: list[Violation]) -> list[dict[str, str]]:
    return [{"rule": rule, "detail": detail} for rule, detail in found]


def _verdict(violations: list[Violation]) -> str:
    return "; ".join(f"{rule}: {detail}" for rule, detail in violations) or "as written"
