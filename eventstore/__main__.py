"""The processes of a ledger group: `python -m eventstore node --help`."""

import logging
import sys
from pathlib import Path

import click

from eventstore.server import logs
from eventstore.wire.proofs import CLUSTER_BYTES_MAX

SECRET_BYTES_MIN = 16
# What whoever replays a list takes at most.
ACCOUNTS_MOST, TRANSFERS_MOST = 2**28, 2**40


class Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT; an address of IPv6 in brackets."""

    name = "HOST:PORT"

    def convert(
        self, value: object, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, int]:
        """Host and port."""
        host, colon, port = str(value).rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and int(port) < 2**16):
            self.fail(f"{value!r} is not like 127.0.0.1:9700 or [::1]:9700", param, context)
        return host.removeprefix("[").removesuffix("]"), int(port)


@click.group()
def main() -> None:
    """The processes of a ledger group."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--listen", type=Address(), required=True, help="Where it is reached; port 0: any.")
@click.option("--cluster", required=True, help="The name of the cluster that it belongs to.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help=f"What clients and it know: {SECRET_BYTES_MIN} bytes or more.",
)
@click.option("--reads", type=Address(), help="Where its read side listens; clients are told.")
@click.option("--begin", is_flag=True, help="Begin a list if the folder has none.")
@click.option(
    "--accounts-max",
    type=click.IntRange(1, ACCOUNTS_MOST),
    default=2**26,
    show_default=True,
    help="How many accounts it takes; address space is reserved for all of them, 128 bytes each.",
)
@click.option(
    "--transfers-max",
    type=click.IntRange(1, TRANSFERS_MOST),
    default=100_000_000,
    show_default=True,
    help="How many transfers it takes in all; each takes 38 to 77 bytes of memory, for ever.",
)
def node(
    folder: Path,
    listen: tuple[str, int],
    cluster: str,
    secret_file: Path,
    reads: tuple[str, int] | None,
    begin: bool,
    accounts_max: int,
    transfers_max: int,
) -> None:
    """Serve the list in FOLDER: decide commands, and answer when they are durable."""
    # It takes a second, which --help does not have to wait for.
    from eventstore.machine.machine import Limits
    from eventstore.server.process import Options, run_node

    logs.configure(logging.INFO)
    secret = read_secret(secret_file)
    limits = Limits(accounts_max, transfers_max)
    options = Options(folder, listen, check_cluster(cluster), secret, reads, begin, machine=limits)
    sys.exit(run_node(options))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--node", type=Address(), required=True, help="Where the list's node is reached.")
@click.option("--listen", type=Address(), required=True, help="Where it is reached itself.")
@click.option("--cluster", required=True, help="The name of the cluster that it belongs to.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help=f"What clients, the node and it know: {SECRET_BYTES_MIN} bytes or more.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder for what it makes of the list. It can be removed, and is made anew.",
)
@click.option("--rebuild", is_flag=True, help="Drop what is kept first, and make it anew.")
def reads(
    folder: Path,
    node: tuple[str, int],
    listen: tuple[str, int],
    cluster: str,
    secret_file: Path,
    keep: Path,
    rebuild: bool,
) -> None:
    """Follow the list in FOLDER, make snapshots of it, and answer what is asked of accounts."""
    from eventstore.server.reads_process import Options, run_reads

    logs.configure(logging.INFO)
    secret = read_secret(secret_file)
    options = Options(folder, keep, listen, node, check_cluster(cluster), secret, rebuilds=rebuild)
    sys.exit(run_reads(options))


def read_secret(path: Path) -> bytes:
    """The secret in a file, without the end of its line."""
    secret = path.read_bytes().rstrip(b"\r\n")
    if len(secret) < SECRET_BYTES_MIN:
        raise click.BadParameter(
            f"{path} has {len(secret)} bytes, and a secret has {SECRET_BYTES_MIN} or more"
        )
    return secret


def check_cluster(name: str) -> str:
    """The name of a cluster."""
    if not 0 < len(name.encode()) <= CLUSTER_BYTES_MAX:
        text = f"a cluster's name has 1 to {CLUSTER_BYTES_MAX} bytes, and {name!r} has not"
        raise click.BadParameter(text)
    return name


if __name__ == "__main__":
    main()
