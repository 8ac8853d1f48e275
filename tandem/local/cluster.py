"""A whole cluster on this machine: ZooKeeper, shards, coordinators and what watches them.

It is kept in one data folder.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem.local import (
    coordinators,
    group,
    mysql,
    ports,
    processes,
    prometheus,
    state,
    zookeeper,
)
from tandem.local.errors import LocalError
from tandem.local.progress import Report, silent
from tandem.local.servers import (
    TITLES,
    Engine,
    find_database,
    find_prometheus,
    find_zookeeper,
)
from tandem.local.state import Kind, Process, State

SHARDS = 3
COORDINATORS = 2
SERVICE_USER = "tandem"
READY = {
    "mysql": (mysql.START_TIMEOUT_S, mysql.STOP_GRACE_S),
    "node": (group.START_TIMEOUT_S, group.STOP_GRACE_S),
    "reads": (group.START_TIMEOUT_S, group.STOP_GRACE_S),
    "zookeeper": (zookeeper.START_TIMEOUT_S, zookeeper.STOP_GRACE_S),
    "coordinator": (coordinators.START_TIMEOUT_S, coordinators.STOP_GRACE_S),
    "prometheus": (prometheus.START_TIMEOUT_S, prometheus.STOP_GRACE_S),
}


@dataclass(frozen=True)
class Options:
    """What the cluster should be like. None: as it is already, or the default for a new one."""

    shards: int | None = None
    coordinators: int | None = None
    engine: Engine | None = None
    # The first of the ports.
    port: int | None = None
    # Whether to add a Prometheus; one that the cluster has is always started with it.
    monitoring: bool = False


class LocalCluster:
    """The cluster in `data_dir`, which need not exist yet.

    Every method may be called from several processes at once; they take turns.
    `coordinator_module` is what a coordinator is run from, such as a test build of the checkout;
    `coordinator_environment` is looked at whenever one is started, and wins over everything else.
    `shard_options` end the command line of each shard that is started, and win over what stands
    before them. `shard_door` gives the port by which a shard is reached, from its name and its own:
    another one where something stands in between.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        coordinator_module: str = coordinators.MODULE,
        coordinator_environment: Mapping[str, str] = {},
        shard_options: Sequence[str] = (),
        shard_door: Callable[[str, int], int] = lambda name, port: port,
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self._coordinator_module = coordinator_module
        self._coordinator_environment = coordinator_environment
        self._shard_options = shard_options
        self._shard_door = shard_door

    def up(self, options: Options = Options(), report: Report = silent) -> None:
        """Start what is not running, set the shards up, and wait until every part is ready.

        What this call started is stopped again if it fails. Raises LocalError.
        """
        with self._changing(report), self._all_or_nothing() as started:
            cluster = self._start_servers(options, started, report)
            self._provision(report)
            rest = [*cluster.of_kind("coordinator"), *cluster.of_kind("prometheus")]
            found = self._start(cluster, rest, started, report)
            self._watch_coordinators(cluster)
            self._await_ready(cluster, found, report)

    def up_servers(self, options: Options = Options(), report: Report = silent) -> None:
        """Start ZooKeeper and the shards alone, with nothing in them but the administrator."""
        with self._changing(report), self._all_or_nothing() as started:
            self._start_servers(options, started, report)

    def down(self, kill: bool = False, report: Report = silent) -> None:
        """Stop everything; the data stay. `kill` ends it all as a crash would."""
        if not self.exists():
            return
        with self._changing(report):
            cluster = self._state()
            self._stop(cluster, cluster.processes, report, kill=kill)

    def start(self, name: str, report: Report = silent, *, wait: bool = True) -> None:
        """Start one process and wait until it is ready; without `wait`, only start it."""
        with self._changing(report), self._all_or_nothing() as started:
            cluster = self._state()
            found = self._start(cluster, [cluster.process(name)], started, report)
            if wait:
                self._await_ready(cluster, found, report)

    def stop(self, name: str, kill: bool = False, report: Report = silent) -> None:
        """Stop one process and wait for its end; `kill` ends it as a crash would."""
        with self._changing(report):
            cluster = self._state()
            self._stop(cluster, [cluster.process(name)], report, kill=kill)

    def rebuild(self, name: str, report: Report = silent) -> None:
        """Stop a read side, drop what it keeps, and start it: it makes all of it anew from its
        node's list, which the node goes on with meanwhile. Raises LocalError.
        """
        with self._changing(report), self._all_or_nothing() as started:
            cluster = self._state()
            process = cluster.process(name)
            if process.kind != "reads":
                raise LocalError(
                    f"{name} is no read side, and what it keeps cannot be made anew: nothing was "
                    "stopped, and nothing removed"
                )
            self._stop(cluster, [process], report)
            group.drop(self.data_dir / name)
            found = self._start(cluster, [process], started, report)
            self._await_ready(cluster, found, report)

    def exists(self) -> bool:
        """Whether the folder holds a cluster, running or not."""
        return (self.data_dir / state.FILE).exists()

    def urls(self) -> list[str]:
        """Where the coordinators' APIs are."""
        return [coordinators.url(p.port) for p in self._state().of_kind("coordinator")]

    def prometheus_url(self) -> str | None:
        """Where its Prometheus is; None if the cluster has none."""
        return next((prometheus.url(p.port) for p in self._state().of_kind("prometheus")), None)

    def status(self) -> dict[str, Any]:
        """What there is and what runs, as `tandem local status --json` prints it."""
        cluster = self._state()
        return {
            "data_dir": str(self.data_dir),
            "urls": [coordinators.url(p.port) for p in cluster.of_kind("coordinator")],
            "processes": [self._described(cluster, process) for process in cluster.processes],
        }

    def crashed(self) -> dict[str, int]:
        """Name and id of each process that has ended without having been stopped."""
        return {
            process.name: process.pid
            for process in self._state().processes
            if process.pid is not None and not processes.is_running(process.pid, process.started)
        }

    def environment(self) -> dict[str, str]:
        """The TANDEM_... variables that lead a command to this cluster, as its administrator."""
        cluster = self._state()
        (keeper,) = cluster.of_kind("zookeeper")
        shards = (
            f"{s.name}={ports.HOST}:{self._shard_door(s.name, s.port)}/{mysql.DATABASE}"
            for s in cluster.of_kind("mysql")
        )
        groups = [
            f"{node.name}=ledger://{ports.HOST}:{self._shard_door(node.name, node.port)}"
            for node in cluster.of_kind("node")
        ]
        return {
            "TANDEM_CLUSTER_ID": cluster.cluster_id,
            "TANDEM_ZOOKEEPER_HOSTS": f"{ports.HOST}:{keeper.port}",
            "TANDEM_ZOOKEEPER_USER": SERVICE_USER if cluster.zookeeper_password else "",
            "TANDEM_ZOOKEEPER_PASSWORD": cluster.zookeeper_password,
            "TANDEM_ZOOKEEPER_PREVIOUS_PASSWORD": "",
            "TANDEM_MYSQL_USER": SERVICE_USER,
            "TANDEM_MYSQL_PASSWORD": cluster.service_password,
            "TANDEM_MYSQL_ADMIN_USER": mysql.ADMIN,
            "TANDEM_MYSQL_ADMIN_PASSWORD": cluster.admin_password,
            # Who has it is taken to stand in front of a ledger group, and loads what that needs.
            "TANDEM_EVENTSTORE_SECRET": cluster.service_password if groups else "",
            "TANDEM_SHARDS": ",".join([*shards, *groups]),
            "TANDEM_URL": ",".join(self.urls()),
        }

    def log(self, name: str) -> Path:
        """Where a process writes what it has to say."""
        return self.data_dir / "logs" / f"{name}.log"

    # The cluster's description

    def _state(self) -> State:
        cluster = state.load(self.data_dir)
        if cluster is None:
            raise LocalError(
                f"there is no local cluster in {self.data_dir}; `tandem local up` makes one"
            )
        return cluster

    def _described(self, cluster: State, process: Process) -> dict[str, Any]:
        running = processes.is_running(process.pid, process.started)
        place = f"{ports.HOST}:{process.port}"
        where = {
            "coordinator": {"url": coordinators.url(process.port)},
            "prometheus": {"url": prometheus.url(process.port)},
            "zookeeper": {"url": f"zookeeper://{place}"},
            "node": {"url": f"ledger://{place}"},
            "reads": {"url": f"ledger://{place}"},
            "mysql": {
                "dsn": f"mysql://{mysql.ADMIN}:{cluster.admin_password}@{place}/{mysql.DATABASE}"
            },
        }[process.kind]
        return {
            "name": process.name,
            "kind": process.kind,
            "pid": process.pid if running else None,
            "port": process.port,
            **where,
            "running": running,
        }

    @contextmanager
    def _described_by(self, options: Options) -> Iterator[State]:
        """The cluster as `options` want it; new ports are kept from others during the block."""
        cluster = state.load(self.data_dir)
        with ExitStack() as stack:
            if cluster is None:
                engine, count = options.engine or "mysql", options.coordinators or COORDINATORS
                shards = options.shards or _shards_of(engine)
                if engine == "eventstore" and shards != 1:
                    raise LocalError(
                        f"--shards {shards} does not fit --engine eventstore: a ledger group is a "
                        "cluster's only shard; leave the option out"
                    )
                # A group's node has its read side beside it.
                more = 1 if engine == "eventstore" else 0
                free = stack.enter_context(ports.reserved(shards + count + 1 + more, options.port))
                cluster = state.new(engine, shards, count, free)
            else:
                _check_same(self.data_dir, cluster, options)
                more = (options.coordinators or 0) - len(cluster.of_kind("coordinator"))
                if more > 0:
                    beyond = max(process.port for process in cluster.processes) + 1
                    free = stack.enter_context(ports.reserved(more, beyond=beyond))
                    state.add_coordinators(cluster, free)
            if options.monitoring and not cluster.of_kind("prometheus"):
                beyond = max(process.port for process in cluster.processes) + 1
                (port,) = stack.enter_context(ports.reserved(1, beyond=beyond))
                state.add_prometheus(cluster, port)
            state.save(self.data_dir, cluster)
            yield cluster

    # Starting and stopping

    def _start_servers(self, options: Options, started: list[Process], report: Report) -> State:
        with self._described_by(options) as cluster:
            kinds: tuple[Kind, ...] = ("zookeeper", "mysql", "node", "reads")
            servers = [process for kind in kinds for process in cluster.of_kind(kind)]
            found = self._start(cluster, servers, started, report)
            self._await_ready(cluster, found, report)
        return cluster

    def _watch_coordinators(self, cluster: State) -> None:
        watched = {process.name: process.port for process in cluster.of_kind("coordinator")}
        for process in cluster.of_kind("prometheus"):
            prometheus.watch(self.data_dir / process.name, watched)

    def _start(
        self, cluster: State, wanted: Sequence[Process], started: list[Process], report: Report
    ) -> list[Process]:
        """Start those that do not run, without waiting for them. Returns those it started."""
        missing = [p for p in wanted if not processes.is_running(p.pid, p.started)]
        for process in missing:
            if process.pid is not None:
                processes.kill(process.pid, process.started)  # what a dead one left behind
            if not ports.is_free(process.port):
                raise LocalError(
                    f"something else listens on {ports.HOST}:{process.port}, the port of "
                    f"{process.name}; stop it, or make another cluster with --data-dir"
                )
        commands = self._commands(cluster, missing, report)
        for process in missing:
            report(f"Starting the servers: {process.name}")
            self._spawn(cluster, process, *commands[process.name], started)
        return missing

    def _spawn(
        self,
        cluster: State,
        process: Process,
        command: list[str],
        environment: dict[str, str],
        started: list[Process],
    ) -> None:
        with processes.uninterrupted():
            process.command = command
            process.pid, process.started = processes.spawn(
                command, self.log(process.name), environment, self.data_dir
            )
            started.append(process)
            state.save(self.data_dir, cluster)

    def _commands(
        self, cluster: State, wanted: Sequence[Process], report: Report
    ) -> dict[str, tuple[list[str], dict[str, str]]]:
        """Command line and environment of each process; prepares the data they need."""
        plain = dict(os.environ)
        commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        for process in wanted:
            if process.kind == "zookeeper":
                server = find_zookeeper(report)
                configuration = zookeeper.configure(self.data_dir / process.name, process.port)
                line = zookeeper.command(server, configuration)
                commands[process.name] = line, {**plain, **server.environment}
            elif process.kind == "coordinator":
                scratch = self.data_dir / process.name
                scratch.mkdir(exist_ok=True)
                own = coordinators.environment(
                    self.environment(), process.name, process.port, scratch
                )
                line = coordinators.command(self._coordinator_module)
                commands[process.name] = line, {**own, **self._coordinator_environment}
            elif process.kind == "prometheus":
                folder = self.data_dir / process.name
                prometheus.configure(folder)
                line = prometheus.command(find_prometheus(report), folder, process.port)
                commands[process.name] = line, plain
            elif process.kind in ("node", "reads"):
                commands[process.name] = self._group_command(cluster, process), plain
        shards = [process for process in wanted if process.kind == "mysql"]
        if shards:
            lines = self._shard_commands(cluster, shards, report)
            commands |= {name: (line, plain) for name, line in lines.items()}
        return commands

    def _group_command(self, cluster: State, process: Process) -> list[str]:
        (node,), (reads,) = cluster.of_kind("node"), cluster.of_kind("reads")
        secret = group.write_secret(self.data_dir, cluster.service_password)
        door = self._shard_door(node.name, node.port)
        place = group.Place(self.data_dir / node.name, cluster.cluster_id, secret, door, reads.port)
        if process.kind == "reads":
            return group.reads_command(place, self.data_dir / reads.name)
        return group.node_command(place, node.port)

    def _shard_commands(
        self, cluster: State, wanted: Sequence[Process], report: Report
    ) -> dict[str, list[str]]:
        if cluster.engine == "eventstore":
            raise LocalError("a ledger group runs on no database server")
        database = find_database(cluster.engine, report)
        folders = {process.name: self.data_dir / process.name for process in wanted}
        new = {name: folder for name, folder in folders.items() if not folder.exists()}
        if new:
            logs = self.data_dir / "logs"
            mysql.initialise(database, new, cluster.admin_password, logs, report)
        for folder in folders.values():
            mysql.prepare(folder)
        numbers = {p.name: n for n, p in enumerate(cluster.of_kind("mysql"), start=1)}
        return {
            p.name: [
                *mysql.command(database, folders[p.name], p.port, numbers[p.name]),
                *self._shard_options,
            ]
            for p in wanted
        }

    def _await_ready(self, cluster: State, started: Sequence[Process], report: Report) -> None:
        for process in started:
            timeout_s, _ = READY[process.kind]
            deadline = time.monotonic() + timeout_s
            while (why := self._not_ready(cluster, process)) is not None:
                report(f"Waiting for {process.name}: {why}")
                ended = processes.wait_for_exit(process.pid or 0, process.started, 0.1)
                if ended or time.monotonic() > deadline:
                    self._give_up(process, "ended at once" if ended else f"is not ready: {why}")

    def _not_ready(self, cluster: State, process: Process) -> str | None:
        if process.kind == "mysql":
            why = mysql.is_ready(process.port, cluster.admin_password)
            if why is None:
                mysql.started(self.data_dir / process.name)
            return why
        if process.kind == "zookeeper":
            return zookeeper.is_ready(process.port)
        if process.kind in ("node", "reads"):
            return group.is_ready(process.port, cluster.cluster_id, cluster.service_password)
        if process.kind == "prometheus":
            return prometheus.is_ready(process.port)
        return coordinators.is_ready(process.port)

    def _give_up(self, process: Process, what: str) -> None:
        log = self.log(process.name)
        raise LocalError(
            f"{process.name} was started, but {what}. Its log {log} ends with:\n"
            f"{processes.last_lines(log)}"
        )

    def _stop(
        self, cluster: State, wanted: Sequence[Process], report: Report, *, kill: bool = False
    ) -> None:
        """Stop coordinators first, ZooKeeper last, so that nobody misses what it needs."""
        order: tuple[Kind, ...] = (
            "prometheus",
            "coordinator",
            "reads",
            "node",
            "mysql",
            "zookeeper",
        )
        for kind in order:
            ending = [p for p in wanted if p.kind == kind and p.pid is not None]
            if ending:
                report(f"Stopping {', '.join(process.name for process in ending)}")
            if kill:
                for process in ending:
                    processes.kill(process.pid or 0, process.started)
            else:
                grace_s = READY[kind][1]
                processes.stop([(p.pid or 0, p.started, grace_s) for p in ending])
            for process in ending:
                process.pid, process.started = None, ""
            state.save(self.data_dir, cluster)

    def _provision(self, report: Report) -> None:
        """Make schema, users and shard map; whatever is there already stays."""
        from coordinator import settings
        from coordinator.cluster import ClusterError
        from coordinator.shards.provisioning import provision
        from shard_client.errors import ShardError

        # The cluster's own addresses win over what the caller's environment says of another one.
        environ = {**os.environ, **self.environment()}
        try:
            provision(settings.load(coordinators.configuration_file(), environ), report)
        except (settings.SettingsError, ClusterError, ShardError) as error:
            raise LocalError(f"the shards could not be set up: {error}") from error

    # Turns

    @contextmanager
    def _changing(self, report: Report) -> Iterator[None]:
        """Keep other commands from changing the same cluster during the block."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.data_dir / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(f"Waiting for another command that changes the cluster in {self.data_dir}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _all_or_nothing(self) -> Iterator[list[Process]]:
        """Stop what the block has put into the list if the block fails or is interrupted."""
        started: list[Process] = []
        try:
            yield started
        except BaseException:
            with processes.uninterrupted():
                if started:
                    cluster = self._state()
                    names = {process.name for process in started}
                    ours = [process for process in cluster.processes if process.name in names]
                    self._stop(cluster, ours, silent)
            raise


def _shards_of(engine: Engine) -> int:
    """How many shards a new cluster has, if nobody says."""
    return 1 if engine == "eventstore" else SHARDS


def _check_same(folder: Path, cluster: State, options: Options) -> None:
    """Raise LocalError if `options` want another cluster than the folder holds."""
    shards = len([*cluster.of_kind("mysql"), *cluster.of_kind("node")])
    count = len(cluster.of_kind("coordinator"))
    first = cluster.of_kind("coordinator")[0].port
    holds = (
        f"{folder} holds a cluster of {TITLES[cluster.engine]}: shards {shards}, "
        f"coordinators {count}, the first port {first}"
    )
    asked = {
        "--engine": (options.engine, options.engine in (None, cluster.engine)),
        "--shards": (options.shards, options.shards in (None, shards)),
        "--coordinators": (options.coordinators, (options.coordinators or count) >= count),
        "--port": (options.port, options.port in (None, first)),
    }
    for option, (value, fits) in asked.items():
        if not fits:
            raise LocalError(
                f"{holds}; {option} {value} does not fit. Leave the option out, or choose another "
                "folder with --data-dir"
            )
