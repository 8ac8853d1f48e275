"""For commands that work on shards and ZooKeeper themselves: their settings and their errors."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from coordinator.cluster import ClusterError
from coordinator.settings import Settings, SettingsError, load
from shard_client.errors import ShardError, ShardUnavailable
from shard_client.shard_map import BrokenShardMap
from tandem.cli.terminal import Command, CommandError, UnknownOutcome, data_dir_option
from tandem.local.cluster import LocalCluster
from tandem.local.errors import LocalError


def local_environment(data_dir: Path) -> dict[str, str]:
    """The TANDEM_... variables of the local cluster in `data_dir`; empty if there is none."""
    cluster = LocalCluster(data_dir)
    try:
        return cluster.environment() if cluster.exists() else {}
    except LocalError as error:
        raise CommandError(sentence(error)) from error


def sentence(error: Exception) -> str:
    """The text of an error with a full stop, unless it ends with some stop already."""
    text = str(error)
    return text if text.endswith((".", "?", "!")) else f"{text}."


def settings_options(command: Command) -> Command:
    """--config and --data-dir; see `load_settings`."""
    option = click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The configuration file (or TANDEM_CONFIG; else config/tandem.toml, if there).",
    )
    return option(data_dir_option(command))


def load_settings(config: Path | None, data_dir: Path) -> Settings:
    """The configuration, with the addresses of the local cluster in `data_dir` if there is one."""
    try:
        return load(config, defaults=local_environment(data_dir))
    except SettingsError as error:
        raise click.UsageError(sentence(error)) from error


@contextmanager
def named_errors() -> Iterator[None]:
    """Turn what the shards and ZooKeeper raise into one clear paragraph and an exit code."""
    # It would tell of each attempt to connect, beside the one error that counts.
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    try:
        yield
    except SettingsError as error:
        raise click.UsageError(sentence(error)) from error
    except ShardUnavailable as error:
        raise UnknownOutcome(sentence(error)) from error
    except (ClusterError, ShardError) as error:
        raise CommandError(sentence(error)) from error
    except BrokenShardMap as error:
        raise CommandError(f"The published shard map cannot be used: {error}.") from error
