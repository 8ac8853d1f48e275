"""How large the parts are, as options of the command line."""

from collections.abc import Callable
from typing import Any

import click

# In the short form, which only sees that all runs.
SHORT = {
    "few_accounts": 200,
    "many_accounts": 2000,
    "few_entries": 2000,
    "many_entries": 10_000,
    "minutes": 0.05,
    "customers": 200,
    "full": False,
}


def _at_least(default: int, least: int, help_: str) -> dict[str, Any]:
    return {
        "type": click.IntRange(least),
        "default": default,
        "show_default": True,
        "help": help_,
    }


_OPTIONS = (
    click.option(
        "--single-workers", **_at_least(2, 1, "Singles, batch-sizes, protocols: workers.")
    ),
    click.option("--latency-workers", **_at_least(1, 1, "Latency: workers of the coordinator.")),
    click.option("--few-accounts", **_at_least(10_000, 100, "Growth: the small cluster's.")),
    click.option("--many-accounts", **_at_least(2_000_000, 100, "Growth: the large one's.")),
    click.option("--few-entries", **_at_least(1_000_000, 1000, "Growth: the small cluster's.")),
    click.option("--many-entries", **_at_least(20_000_000, 1000, "Growth: the large one's.")),
    click.option(
        "--minutes",
        type=click.FloatRange(0, min_open=True),
        default=15.0,
        show_default=True,
        help="Memory: how long at full load.",
    ),
    click.option("--customers", **_at_least(100_000, 10, "SmallBank: customers.")),
    click.option("--smallbank-clients", **_at_least(32, 1, "SmallBank: connections.")),
    click.option(
        "--shards",
        multiple=True,
        type=click.IntRange(2, 64),
        default=(2, 4, 8),
        show_default=True,
        help="Counts: with so many shards; to be repeated.",
    ),
    click.option(
        "--full",
        is_flag=True,
        help="Eventstore: 10 million accounts, 100 million ids, 20 million entries. Takes about "
        "an hour more, 12 GiB of memory and 20 GB of disk.",
    ),
)


def part_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of the parts."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
