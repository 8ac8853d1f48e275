"""How fast the audit is, and how much memory it takes: `python -m bench.audit --help`.

Fills the shards of a cluster through the ledger and the shard client, without HTTP, and runs
`tandem audit` on them in a process of its own.
"""

import os
import random
import secrets
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click

from bench.place import Place, Server, cluster
from coordinator.cluster import ClusterError
from coordinator.settings import SettingsError
from ledger.decide import decide
from ledger.ids import transfer_id
from ledger.model import Account, Posting, Transfer
from shard_client.accounts import open_all
from shard_client.address import Address
from shard_client.branch import Branch
from shard_client.connection import ShardConnection
from shard_client.errors import ShardError
from shard_client.records import StoredTransfer, Terms, Writes
from tandem.cli.local import guarded
from tandem.cli.terminal import CommandError, console
from tandem.local.progress import Report, shown

_GROUP = 1000
_ENTRIES_PER_ACCOUNT = 100
_TIMEOUT_S = 60.0
_TANDEM = (sys.executable, "-c", "from tandem.cli import main; main()")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--entries", type=click.IntRange(_GROUP), default=100_000, show_default=True)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Fill up and audit the local cluster in this folder.  [default: a new one]",
)
@guarded
def main(entries: int, data_dir: Path | None) -> None:
    """Fill two shards until they hold so many entries together, and audit them."""
    try:
        with shown(console(stderr=True)) as report, cluster(data_dir, 1, 1, report) as place:
            fill(place, entries, report)
            report("Auditing")
            seconds, cpu_s, largest_kib = audit_apart(place)
            held = sum(count_entries(server) for server in place.servers)
    except (RuntimeError, ClusterError, SettingsError, ShardError) as error:
        raise CommandError(f"{error}.") from error
    click.echo(
        f"{held:,} entries on {len(place.servers)} shards in {seconds:.1f} s: "
        f"{held / seconds:,.0f} entries/s; {cpu_s / held * 1e6:.1f} us of its CPU time for each; "
        f"the largest process took {largest_kib / 1024:,.0f} MiB"
    )


def count_entries(server: Server) -> int:
    return int(server.rows("SELECT COUNT(*) FROM entries")[0][0])


def audit_apart(place: Place) -> tuple[float, float, int]:
    """How long `tandem audit` takes, its CPU time without the servers', and the memory of its
    largest process, in KiB.
    """
    began = time.monotonic()
    command = [*_TANDEM, "audit", "--json", "--data-dir", place.data_dir]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise RuntimeError("the audit has failed; run `tandem audit` to see why")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def fill(place: Place, entries: int, report: Report) -> None:
    """Move money between new accounts, half of it across shards, up to so many entries."""
    held = sum(count_entries(server) for server in place.servers)
    connections = {server.shard: _connect(server) for server in place.servers}
    accounts = _open(place, connections, max((entries - held) // _ENTRIES_PER_ACCOUNT, 10))
    names, run = sorted(accounts), secrets.token_hex(4)
    chance = random.Random(run)
    for done in range(held, entries, 2 * _GROUP):
        report(f"Filling the shards: {done:,} of {entries:,} entries")
        now = time.time_ns() // 1000
        wishes = [
            _wish(chance.sample(names, 2), f"{run}-{done + number}", now)
            for number in range(_GROUP)
        ]
        accounts |= _move(place, connections, accounts, wishes, now)
    for connection in connections.values():
        connection.close()


def _connect(server: Server) -> ShardConnection:
    return ShardConnection(
        Address(
            server.shard, server.host, server.port, server.database, server.user, server.password
        ),
        _TIMEOUT_S,
        int(_TIMEOUT_S),
    )


def _open(place: Place, connections: dict[str, ShardConnection], number: int) -> dict[str, Account]:
    terms: dict[str, list[Terms]] = defaultdict(list)
    for _ in range(number):
        name = f"audit.{secrets.token_hex(6)}"
        terms[place.shard_map.shard_of(name)].append(Terms(name, "EUR", None))
    found: dict[str, Account] = {}
    for shard, some in terms.items():
        deadline = time.monotonic() + _TIMEOUT_S
        states, _ = open_all(connections[shard], some, time.time_ns() // 1000, deadline)
        found |= {name: state.account for name, state in states.items()}
    return found


def _wish(ends: Sequence[str], key: str, now: int) -> Transfer:
    source, destination = ends
    id_ = transfer_id(source, key)
    return Transfer(id_, key, source, destination, 7, "EUR", None, "xa", now)


def _move(
    place: Place,
    connections: dict[str, ShardConnection],
    accounts: dict[str, Account],
    wishes: list[Transfer],
    now: int,
) -> dict[str, Account]:
    """Write a group; nobody else is at work on these accounts, so each shard commits alone."""
    outcomes, changed = decide(accounts, wishes, now)
    writes = {shard: Writes([], [], []) for shard in connections}
    for wish, outcome in zip(wishes, outcomes, strict=True):
        assert isinstance(outcome, Posting)
        for entry in outcome:
            writes[place.shard_map.shard_of(entry.account)].entries.append(entry)
        stamp = outcome.debit.stamp
        stored = StoredTransfer(wish, "bench", "committed", None, None, stamp)
        writes[place.shard_map.shard_of(wish.source)].transfers.append(stored)
    for account in changed.values():
        writes[place.shard_map.shard_of(account.id)].accounts.append(account)
    deadline = time.monotonic() + _TIMEOUT_S
    branches = [Branch(connection, "bench", is_local=True) for connection in connections.values()]
    for branch in branches:
        branch.lock([], [], deadline).get()
    for reply in [b.write_unprepared(writes[b.shard], deadline) for b in branches]:
        reply.get()
    for reply in [branch.commit_alone(deadline) for branch in branches]:
        reply.get()
    return changed


if __name__ == "__main__":
    main()
