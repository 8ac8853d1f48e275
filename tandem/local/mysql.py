"""How a shard's server is set up, started and asked whether it is ready."""

import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pymysql
from pymysql.constants import CR

from shard_client.plain import PlainConnection
from tandem.local import processes
from tandem.local.errors import LocalError
from tandem.local.ports import HOST
from tandem.local.progress import Report
from tandem.local.servers import Database, download_folder

ADMIN = "tandem_admin"
DATABASE = "tandem"
INITIALISE_TIMEOUT_S = 180
START_TIMEOUT_S = 120
# A clean shutdown writes what the buffer pool holds.
STOP_GRACE_S = 60

_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def buffer_pool_mib(memory: int) -> int:
    """How much of a machine with so many bytes a shard may take to keep pages, as it needs it.

    Several servers share the machine; one that keeps too few is soon a third slower.
    """
    return min(max(memory // 2**20 // 16, 128), 1024)


# Nothing acknowledged is lost, whatever crashes.
DURABLE = ("--innodb-flush-log-at-trx-commit=1", "--innodb-doublewrite=ON")
COMMON = (
    f"--bind-address={HOST}",
    # Relative to the data folder: a socket's whole path may have no more than 107 characters.
    "--socket=mysqld.sock",
    "--pid-file=mysqld.pid",
    "--skip-name-resolve",
    "--max-connections=500",
    "--max-allowed-packet=64M",
    "--character-set-server=utf8mb4",
    "--default-time-zone=+00:00",
    # Its tables of locks and threads are there; what it counts for statements costs a twentieth.
    "--performance-schema=ON",
    "--performance-schema-instrument=%=OFF",
    "--performance-schema-consumer-global-instrumentation=OFF",
    f"--innodb-buffer-pool-size={buffer_pool_mib(_MEMORY)}M",
    "--innodb-log-buffer-size=16M",
    "--key-buffer-size=1M",
    "--performance-schema-digests-size=1000",
    # Rows are found by primary key, one by one.
    "--innodb-adaptive-hash-index=ON",
)
# `loose`: only some builds know it.
MYSQL = (
    "--sync-binlog=1",
    "--log-bin=binlog",
    # A group fits, so that nothing of it goes through a file first.
    "--binlog-cache-size=4M",
    # Who wrote which row is of use to replicas with several threads; noting it costs each row.
    "--loose-binlog-transaction-dependency-history-size=1",
    # Every table has a primary key: the columns that have changed are enough.
    "--binlog-row-image=MINIMAL",
    "--binlog-expire-logs-seconds=3600",
    "--log-bin-trust-function-creators=1",
    "--innodb-redo-log-capacity=256M",
    # A session writes its own redo: on a few cores, waking another thread for it costs more.
    "--innodb-log-writer-threads=OFF",
    "--loose-mysqlx=OFF",
    "--secure-file-priv=NULL",
)
MARIADB = ("--skip-log-bin", "--innodb-log-file-size=256M", "--log-bin-trust-function-creators=1")
# The order matters: what `mariadb-install-db` feeds a new server.
MARIADB_TABLES = (
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_sys_schema.sql",
)


def _base(server: Database, data: Path) -> list[str]:
    """What every call of the server begins with: no file of the machine's may change it.

    Temporary files have a folder of their own: MariaDB clears the one it is given when it starts,
    so that in a common one servers would take away each other's.
    """
    places = (f"--datadir={data}", f"--tmpdir={temporary_folder(data)}")
    command = [*server.program, "--no-defaults", *server.options, *places]
    if os.geteuid() == 0:
        command.append("--user=root")  # else a server refuses to run as root
    return command


def temporary_folder(data: Path) -> Path:
    """Where the server with this data folder keeps temporary files."""
    return data.with_name(f"{data.name}.tmp")


def command(server: Database, data: Path, port: int, number: int) -> list[str]:
    """The command line of shard number `number` (from 1)."""
    engine = MYSQL if server.engine == "mysql" else MARIADB
    own = [f"--port={port}", f"--server-id={number}"]
    if (first := _first_sql(data)).exists():
        own.append(f"--init-file={first}")
    return [*_base(server, data), *COMMON, *DURABLE, *engine, *own]


def initialise(
    server: Database, folders: Mapping[str, Path], admin_password: str, logs: Path, report: Report
) -> None:
    """Make the data folders of new shards.

    Each is a copy of one that is kept for this build of the server: to make one takes some times
    as long as to copy it. A folder appears under its name only when it is complete. At its first
    start the server's root gets a password that nobody knows; the account ADMIN may do everything.
    """
    logs.mkdir(parents=True, exist_ok=True)
    template = _template(server, logs / f"{server.engine}-template.log", report)
    for name, data in folders.items():
        report(f"Creating the shards' data folders: {name}")
        work = _unfinished(data)
        shutil.rmtree(work, ignore_errors=True)
        _copy(template, work)
        for own in (work / "auto.cnf", *work.glob("*.pem")):
            # What tells a server from others: it makes them anew.
            own.unlink(missing_ok=True)
        first = _first_sql(data)
        first.touch(mode=0o600)
        first.write_text(_accounts_sql(admin_password))
        work.rename(data)


def _template(server: Database, log: Path, report: Report) -> Path:
    """A data folder of this build of the server as it is before its first start."""
    command = _begin_command(server, Path("data"))
    what = "\n".join([server.version, *command]).encode()
    name = f"{server.engine}-{hashlib.sha256(what).hexdigest()[:16]}"
    template = download_folder() / "templates" / name
    if template.exists():
        return template
    report(
        f"Creating a data folder of {server.engine} {server.version}, which others are copied of"
    )
    template.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=template.parent, prefix=f"{name}.") as folder:
        made = Path(folder) / "data"
        _create(server, made, log)
        try:
            made.rename(template)
        except OSError as error:
            # Another one may have been quicker; a folder that holds something is not replaced.
            if not template.is_dir():
                raise LocalError(f"{template} cannot be made: {error}") from error
    return template


def _create(server: Database, data: Path, log: Path) -> None:
    """Have the server make a data folder. Raises LocalError."""
    data.mkdir()
    temporary_folder(data).mkdir()
    with tempfile.TemporaryFile() as given, log.open("ab") as output:
        given.write(_tables_sql(server).encode())
        given.seek(0)
        try:
            done = subprocess.run(
                _begin_command(server, data),
                stdin=given,
                stdout=output,
                stderr=output,
                timeout=INITIALISE_TIMEOUT_S,
                check=False,
            )
            how = None if done.returncode == 0 else "failed"
        except subprocess.TimeoutExpired:
            how = "took too long"
    if how:
        raise LocalError(
            f"creating a data folder {how}; {log} ends with:\n{processes.last_lines(log)}"
        )


def _begin_command(server: Database, data: Path) -> list[str]:
    if server.engine == "mysql":
        return [*_base(server, data), "--initialize-insecure", *MYSQL]
    own = ("--bootstrap", "--log-warnings=0", "--max-allowed-packet=8M")
    return [*_base(server, data), *own, *MARIADB]


def _tables_sql(server: Database) -> str:
    """What MariaDB is told to make its own tables; MySQL knows by itself."""
    if server.engine == "mysql":
        return ""
    if server.share is None:
        raise LocalError(
            f"{server.program[-1]} lacks the SQL files that make MariaDB's system tables "
            "(mysql_system_tables.sql)"
        )
    files = (server.share / name for name in MARIADB_TABLES)
    tables = "".join(path.read_text() for path in files if path.exists())
    opening = "CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"
    root = "DELETE FROM mysql.global_priv WHERE User='root' AND Host<>'localhost';\n"
    proxy = "DELETE FROM mysql.proxies_priv WHERE Host<>'localhost';\nFLUSH PRIVILEGES;\n"
    return opening + tables + root + proxy


def _copy(template: Path, to: Path) -> None:
    """Most of a new data folder is zeros: as holes they take neither time nor room."""
    if shutil.which("cp"):
        sparse = ["cp", "-R", "--sparse=always", str(template), str(to)]
        if subprocess.run(sparse, capture_output=True, check=False).returncode == 0:
            return
        shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(template, to)


def _accounts_sql(admin_password: str) -> str:
    """For the first start; if that is broken off, for the next one."""
    return (
        f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{secrets.token_urlsafe(24)}';\n"
        f"CREATE USER IF NOT EXISTS '{ADMIN}'@'%' IDENTIFIED BY '{admin_password}';\n"
        f"GRANT ALL PRIVILEGES ON *.* TO '{ADMIN}'@'%' WITH GRANT OPTION;\n"
    )


def _unfinished(data: Path) -> Path:
    return data.with_name(f"{data.name}.part")


def _first_sql(data: Path) -> Path:
    """What a server is told at its first start, before it listens."""
    return data.with_name(f"{data.name}.first.sql")


def started(data: Path) -> None:
    """A server has started with this data folder and takes connections."""
    _first_sql(data).unlink(missing_ok=True)


def prepare(data: Path) -> None:
    """Make the data folder ready for a start: without the socket that a crashed server left.

    A server removes that itself, unless a process with the old id seems to live: one that nobody
    has asked for its end yet, or a stranger. A server that does live keeps its data files locked.
    """
    for name in ("mysqld.sock", "mysqld.sock.lock"):
        (data / name).unlink(missing_ok=True)
    temporary_folder(data).mkdir(exist_ok=True)


def is_ready(port: int, admin_password: str) -> str | None:
    """None if the shard takes connections, else why not."""
    try:
        with closing(
            PlainConnection(
                host=HOST, port=port, user=ADMIN, password=admin_password, connect_timeout=5
            )
        ) as connection:
            connection.ping(reconnect=False)
    except (pymysql.Error, OSError) as error:
        refused = error.args[:1] == (CR.CR_CONN_HOST_ERROR,)
        return "no connections taken yet" if refused else str(error)
    return None
