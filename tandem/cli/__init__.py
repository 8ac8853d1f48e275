"""The command `tandem`. Each subcommand lives in a module of its own, loaded when it is used."""

import importlib
from typing import cast

import click

# name -> where it is, and its line in `tandem --help`.
COMMANDS = {
    "local": ("tandem.cli.local:local", "Start and stop a whole cluster on this machine."),
    "account": ("tandem.cli.account:account", "Create accounts, show them and their statements."),
    "transfer": ("tandem.cli.transfer:transfer", "Move money between two accounts."),
    "import": ("tandem.cli.import_command:import_", "Import accounts or transfers from a file."),
    "audit": ("tandem.cli.audit:audit", "Check every invariant across all shards."),
    "trial-balance": (
        "tandem.cli.trial_balance:trial_balance",
        "Sum up a ledger group's accounts at any moment.",
    ),
    "export": ("tandem.cli.export:export", "Export entries of a time range as CSV or Parquet."),
    "chaos": ("tandem.cli.chaos:chaos", "Kill and freeze parts under load; check every answer."),
    "cluster": ("tandem.cli.operation:cluster", "Show who is there, who leads, how shards are."),
    "in-doubt": ("tandem.cli.operation:in_doubt", "Show what is in doubt; finish it now."),
    "leader": ("tandem.cli.operation:leader", "Hand leadership over."),
    "token": ("tandem.cli.token:token", "Make tokens for those who call the service."),
    "eventstore": ("tandem.cli.eventstore:eventstore", "Look at the list of a ledger group."),
    "shards": ("tandem.cli.shards:shards", "Show the shard map, set shards up, check them."),
}


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="tandem", message="tandem %(version)s")
def main() -> None:
    """Move money between accounts on different MySQL shards: on both or on neither.

    \b
    Examples:
      tandem local up                                      a cluster on this machine
      tandem account create bank EUR --unlimited           where money enters
      tandem account create alice EUR
      tandem transfer bank alice 1250 EUR                  12.50 EUR, in cents
      tandem account statement alice
      tandem import samples/accounts.csv
      tandem import samples/transfers.jsonl
      tandem audit                                         is every cent where it belongs?

    Commands that talk to the service find it by --url, by TANDEM_URL, or by the local cluster
    that runs in the data folder (--data-dir, TANDEM_DATA_DIR, .tandem unless told otherwise).
    They present the token in TANDEM_TOKEN, or in the file that TANDEM_TOKEN_FILE names.
    Every command explains itself: tandem COMMAND --help.

    \b
    Exit codes:
      0  done
      1  refused, or something is wrong that the message names
      2  the command was not used rightly
      3  the service cannot be reached, or the outcome is not known (yet)
    """
