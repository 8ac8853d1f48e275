"""What a cluster has done so far, from the counters of its servers, coordinators and processes.

Differences of these are for all that happens in between: sweeps, and the bench's own reading, too.
"""

from collections import Counter
from urllib.request import urlopen

from bench.place import Place, Server
from bench.processes import cpu_ns

_BINLOG = "wait/io/file/sql/binlog"
# A server syncs its binlog without counting it, unless it watches that file; it begins to with
# the next one. What it then counts as neither reading nor writing is syncing, but for a few calls
# when a file is opened.
_WATCH = (
    f"UPDATE performance_schema.setup_instruments SET ENABLED = 'YES' WHERE NAME = '{_BINLOG}'",
    "UPDATE performance_schema.setup_consumers SET ENABLED = 'YES'"
    " WHERE NAME = 'global_instrumentation'",
    "FLUSH BINARY LOGS",
)
_BINLOG_FILE = (
    "SELECT COUNT_MISC, SUM_NUMBER_OF_BYTES_WRITE FROM"
    f" performance_schema.file_summary_by_event_name WHERE EVENT_NAME = '{_BINLOG}'"
)
# Ours -> the server's own.
_STATUS = {
    "statements": "Queries",
    "redo flushes": "Innodb_os_log_fsyncs",
    "redo bytes": "Innodb_os_log_written",
    "bytes to shards": "Bytes_received",
    "bytes from shards": "Bytes_sent",
}
_FLUSHES = ("binlog flushes", "redo flushes")
_PACKETS = "coordinator_shard_call_seconds_count"
_DEFERRED = "coordinator_deferred_transfers_total"
_GROUPS = "coordinator_group_size_count"
_TIMEOUT_S = 10.0


def watch(place: Place) -> None:
    """Let the shards count what they do with their binlogs, until they are started again."""
    for server in place.servers:
        for statement in _WATCH:
            server.rows(statement)


def counts(place: Place) -> Counter[str]:
    """All counters by name, over all shards and coordinators; times are in ns."""
    found = Counter(
        {
            "round trips": sum(_metric(url, _PACKETS) for url in place.urls),
            "groups": sum(_metric(url, _GROUPS) for url in place.urls),
            "shards' processor time": cpu_ns(place.shard_pids),
            "coordinators' processor time": cpu_ns(place.worker_pids),
        }
    )
    for server in place.servers:
        found.update(_of_server(server))
    return found


def of_coordinators(place: Place) -> Counter[str]:
    """What they count themselves, and their workers' processor time in ns."""
    return Counter(
        {
            "groups": sum(_metric(url, _GROUPS) for url in place.urls),
            "deferred": sum(_metric(url, _DEFERRED) for url in place.urls),
            "coordinators' processor time": cpu_ns(place.worker_pids),
        }
    )


def flushes(place: Place) -> Counter[str]:
    """How often each shard has flushed its binlog and its redo log so far, by its name."""
    found = {server.shard: _of_server(server) for server in place.servers}
    return Counter({name: sum(one[log] for log in _FLUSHES) for name, one in found.items()})


def _of_server(server: Server) -> dict[str, int]:
    status = dict(server.rows("SHOW GLOBAL STATUS"))
    found = {ours: int(status[theirs]) for ours, theirs in _STATUS.items()}
    syncs, written = server.rows(_BINLOG_FILE)[0]
    return found | {"binlog flushes": int(syncs), "binlog bytes": int(written)}


def _metric(url: str, name: str) -> int:
    """The sum of a metric's series, over all labels."""
    with urlopen(f"{url}/metrics", timeout=_TIMEOUT_S) as answer:
        return total_of(answer.read().decode(), name)


def total_of(exposition: str, name: str) -> int:
    """The sum of a metric's series in a text of Prometheus's format."""
    lines = (line for line in exposition.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines))
