"""How the processes of a ledger group are started, and asked whether they are ready."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from tandem.local.errors import LocalError
from tandem.local.ports import HOST

START_TIMEOUT_S = 120
STOP_GRACE_S = 30
_ANSWER_S = 2.0


class Place(NamedTuple):
    """A group: its folder, the cluster's name, the file with the secret, the port by which its node
    is reached, and that of its read side.
    """

    folder: Path
    cluster: str
    secret: Path
    node_port: int
    reads_port: int


def write_secret(data_dir: Path, secret: str) -> Path:
    """The file with what the processes of a cluster prove themselves with."""
    path = data_dir / "eventstore.secret"
    if not path.exists() or path.read_text() != secret:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "w") as writing:
            writing.write(secret)
    return path


def node_command(place: Place, port: int) -> list[str]:
    """The command line of the node; it begins a list if there is none."""
    place.folder.mkdir(mode=0o700, exist_ok=True)
    return [
        *_common("node", place, port),
        *("--reads", f"{HOST}:{place.reads_port}", "--begin"),
    ]


def reads_command(place: Place, folder: Path) -> list[str]:
    """The command line of the read side, which keeps its own files in `folder`."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return [
        *_common("reads", place, place.reads_port),
        *("--node", f"{HOST}:{place.node_port}", "--keep", str(folder)),
    ]


def drop(folder: Path) -> None:
    """Remove what a read side keeps, which must not run. Raises LocalError."""
    from eventstore.reading import side
    from eventstore.reading.errors import ReadingError
    from eventstore.segments.errors import ListError

    try:
        side.drop(folder)
    except (ListError, ReadingError) as error:
        raise LocalError(str(error)) from error


def is_ready(port: int, cluster: str, secret: str) -> str | None:
    """None if a process of the group answers at a port, else why not."""
    # Takes an extra that other clusters do without.
    try:
        from eventstore.client import Client
        from eventstore.wire.errors import ClientError
    except ImportError as error:
        return f"{error}: a ledger group takes the extra 'eventstore'"
    client = Client(HOST, port, secret.encode(), cluster, connect_timeout_s=_ANSWER_S)
    try:
        client.connect()
    except ClientError as error:
        return str(error)
    finally:
        client.close()
    return None


def _common(what: str, place: Place, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "eventstore", what, str(place.folder)),
        *("--listen", f"{HOST}:{port}", "--cluster", place.cluster),
        *("--secret-file", str(place.secret)),
    ]
