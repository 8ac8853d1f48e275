"""`tandem shards`: show the shard map, set shards up, check them."""

from collections import Counter
from pathlib import Path

import click

from coordinator.cluster import read_map
from coordinator.shards.provisioning import ShardCheck, check_shards, provision
from coordinator.shards.provisioning import restore_map as restore
from shard_client.shard_map import GROUP_SCHEME, ShardMap
from tandem.cli.configuration import load_settings, named_errors, settings_options
from tandem.cli.terminal import CommandError, console, json_option, print_json, table
from tandem.local.progress import shown


@click.group()
def shards() -> None:
    """Show the shard map, set shards up, check them.

    These commands speak to ZooKeeper and to the shards themselves, as config/tandem.toml and the
    TANDEM_... variables say, or to the local cluster in --data-dir.
    """


@shards.command()
@json_option
@settings_options
def show(as_json: bool, config: Path | None, data_dir: Path) -> None:
    """Show the published shard map: its version, the shards, and how many slots each owns."""
    settings = load_settings(config, data_dir)
    with named_errors():
        current = read_map(settings)
    if as_json:
        print_json(_as_document(current))
        return
    click.echo(f"Shard map of cluster {settings.cluster.id}, version {current.version}:")
    slots = _slot_counts(current)
    made = table("shard", "address", "slots", "ranges", "server uuid", right=("slots",))
    for name, address in current.shards.items():
        made.add_row(
            name,
            str(address),
            str(slots[name]),
            ", ".join(f"{first}-{last}" for first, last in current.ranges_of(name)),
            address.server_uuid,
        )
    console().print(made)


def _slot_counts(current: ShardMap) -> Counter[str]:
    counts: Counter[str] = Counter()
    for first, last, shard in current.ranges:
        counts[shard] += last - first + 1
    return counts


def _as_document(current: ShardMap) -> dict[str, object]:
    slots = _slot_counts(current)
    return {
        "version": current.version,
        "shards": [
            {
                "id": name,
                "host": address.host,
                "port": address.port,
                "database": address.database,
                "server_uuid": address.server_uuid,
                "slots": slots[name],
                "ranges": current.ranges_of(name),
            }
            for name, address in current.shards.items()
        ],
    }


@shards.command()
@settings_options
def init(config: Path | None, data_dir: Path) -> None:
    """Make shards of the servers in [shards]: schema, users, grants; then publish their map.

    It needs mysql.admin_user and mysql.admin_password. It may be repeated: what is there stays,
    apart from passwords, grants, and who owns what is in ZooKeeper.

    \b
    Example:
      TANDEM_SHARDS=s1=db1:3306/tandem,s2=db2:3306/tandem \\
      TANDEM_MYSQL_ADMIN_USER=root TANDEM_MYSQL_ADMIN_PASSWORD=... tandem shards init
    """
    settings = load_settings(config, data_dir)
    with named_errors():
        provision(settings, click.echo)
    click.echo("The shards are set up. To see them: tandem shards show; to check them: check.")


@shards.command("restore-map")
@settings_options
def restore_map(config: Path | None, data_dir: Path) -> None:
    """Publish the shard map again that ZooKeeper has lost, from what the shards say that they own.

    [shards] names every shard with its address. Each must answer as that shard of this cluster, and
    together they must own every slot once; otherwise nothing is published, and what does not fit is
    named. It is refused while a map is published.
    """
    settings = load_settings(config, data_dir)
    with named_errors():
        restore(settings, click.echo)
    click.echo("To see it: tandem shards show; to check the books against it: tandem audit.")


@shards.command()
@json_option
@settings_options
def check(as_json: bool, config: Path | None, data_dir: Path) -> None:
    """Check every shard: is it reachable, is it the right one, is it as durable as required, and
    can be written there what transfers write? That is tried, and rolled back.

    Each problem names the setting and how to mend it. Exits with 1 if there is one.
    """
    settings = load_settings(config, data_dir)
    with shown(console(stderr=True)) as report, named_errors():
        report("Checking the shards")
        checks = check_shards(settings)
    bad = [item for item in checks if item.problems or not item.reachable]
    if as_json:
        print_json([item._asdict() for item in checks])
    else:
        _print_checks(checks)
    if bad:
        names = ", ".join(item.shard for item in bad)
        raise CommandError(
            f"{len(bad)} of {len(checks)} shards cannot be used as they are: {names}."
        )


def _print_checks(checks: list[ShardCheck]) -> None:
    for item in checks:
        state = "good" if item.reachable and not item.problems else "NOT GOOD"
        what = "" if item.address.startswith(GROUP_SCHEME) else "server "
        version = f", {what}{item.version}" if item.version else ""
        reachable = "" if item.reachable else ", not reachable"
        click.echo(f"{item.shard} at {item.address}: {state}{version}{reachable}")
        for problem in item.problems:
            click.echo(f"  problem: {problem}")
        for note in item.notes:
            click.echo(f"  note: {note}")
