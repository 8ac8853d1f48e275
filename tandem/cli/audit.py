"""`tandem audit`: every invariant, across all shards."""

from pathlib import Path

import click

from coordinator.audit import AuditResult
from coordinator.audit import audit as run_audit
from tandem.cli.configuration import load_settings, named_errors, settings_options
from tandem.cli.terminal import CommandError, console, json_option, print_json, table
from tandem.local.progress import shown


@click.command()
@json_option
@settings_options
def audit(as_json: bool, config: Path | None, data_dir: Path) -> None:
    """Check every invariant across all shards, on a system that is in use.

    For each currency the balances add up to zero; a balance is the sum of its account's entries
    and within its limit; a transfer has all its entries or none; and what else must always hold.
    It reads the shards themselves, as config/tandem.toml and the TANDEM_... variables say, or
    those of the local cluster in --data-dir, and changes nothing.

    Each violation is named. Exits with 1 if there is one.
    """
    settings = load_settings(config, data_dir)
    with shown(console(stderr=True)) as report, named_errors():
        result = run_audit(settings, report)
    if as_json:
        print_json(
            {
                "violations": [
                    {"rule": v.rule, "shard": v.shard, "subject": v.subject, "detail": v.detail}
                    for v in result.violations
                ],
                "summary": result.summary,
            }
        )
    else:
        print_audit(result)
    if result.violations:
        raise CommandError(f"{len(result.violations):,} violations were found.")


def print_audit(result: AuditResult) -> None:
    """What was looked at, and each violation."""
    screen = console()
    looked_at = table("looked at", "count", right=("count",))
    for name, count in result.summary.items():
        looked_at.add_row(name.replace("_", " "), f"{count:,}")
    screen.print(looked_at)
    if not result.violations:
        screen.print("Every invariant holds.")
        return
    found = table("rule", "shard", "subject", "what is wrong")
    for violation in result.violations:
        found.add_row(violation.rule, violation.shard or "all", violation.subject, violation.detail)
    screen.print(found)
