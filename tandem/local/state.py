"""What a data folder knows about its cluster: the file cluster.json."""

import os
import secrets
from pathlib import Path
from typing import Literal

import msgspec

from tandem.local.errors import LocalError
from tandem.local.servers import Engine

FILE = "cluster.json"
FORMAT = 1
Kind = Literal["mysql", "node", "reads", "zookeeper", "coordinator", "prometheus"]


class Process(msgspec.Struct):
    """A server of the cluster, running or not."""

    name: str
    kind: Kind
    port: int
    pid: int | None = None
    # See processes.start_mark.
    started: str = ""
    command: list[str] = []


class State(msgspec.Struct):
    """A cluster. Processes stand in the order in which they are started."""

    format: int
    engine: Engine
    cluster_id: str
    admin_password: str
    service_password: str
    processes: list[Process]
    # Empty in clusters that were made before there was one: their ZooKeeper is open.
    zookeeper_password: str = ""

    def of_kind(self, kind: Kind) -> list[Process]:
        return [process for process in self.processes if process.kind == kind]

    def process(self, name: str) -> Process:
        """The process called so; a LocalError names those that there are."""
        for process in self.processes:
            if process.name == name:
                return process
        names = ", ".join(process.name for process in self.processes)
        raise LocalError(f"this cluster has no {name!r}; it has {names}")


def new(engine: Engine, shards: int, coordinators: int, ports: list[int]) -> State:
    """A cluster whose ports are `ports`: coordinators first, then ZooKeeper, then shards; for a
    ledger group its node and its read side.
    """
    first, zookeeper, rest = ports[:coordinators], ports[coordinators], ports[coordinators + 1 :]
    if engine == "eventstore":
        parts = [Process("s1", "node", rest[0]), Process("s1-reads", "reads", rest[1])]
    else:
        parts = [Process(f"s{i}", "mysql", port) for i, port in enumerate(rest[:shards], start=1)]
    return State(
        format=FORMAT,
        engine=engine,
        cluster_id=f"local-{secrets.token_hex(2)}",
        admin_password=secrets.token_urlsafe(18),
        service_password=secrets.token_urlsafe(18),
        zookeeper_password=secrets.token_urlsafe(18),
        processes=[
            Process("zk", "zookeeper", zookeeper),
            *parts,
            *(Process(f"c{i}", "coordinator", port) for i, port in enumerate(first, start=1)),
        ],
    )


def load(folder: Path) -> State | None:
    """The cluster of a data folder; None if there is none yet."""
    file = folder / FILE
    try:
        state = msgspec.json.decode(file.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise LocalError(f"{file} cannot be read: {error}") from error
    if state.format != FORMAT:
        raise LocalError(
            f"{file} was written by another version of Tandem (format {state.format}, this one "
            f"reads {FORMAT}); choose another folder with --data-dir"
        )
    return state


def save(folder: Path, state: State) -> None:
    """Replace the file in one step; only its owner may read it, because it has passwords."""
    text = msgspec.json.format(msgspec.json.encode(state), indent=2)
    part = folder / f"{FILE}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / FILE)


def add_coordinators(state: State, ports: list[int]) -> None:
    """Let the cluster have further coordinators, one at each of `ports`."""
    count = len(state.of_kind("coordinator"))
    names = (f"c{count + number}" for number in range(1, len(ports) + 1))
    state.processes += [
        Process(name, "coordinator", p) for name, p in zip(names, ports, strict=True)
    ]


def add_prometheus(state: State, port: int) -> None:
    """Let the cluster have a Prometheus that watches its coordinators."""
    state.processes.append(Process("prometheus", "prometheus", port))
