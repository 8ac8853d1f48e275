"""What a local cluster is made of, as far as no server is needed for it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.local import (
    coordinators,
    mysql,
    ports,
    processes,
    prometheus,
    servers,
    state,
    zookeeper,
)
from tandem.local.cluster import LocalCluster, Options
from tandem.local.errors import LocalError

ROOT = Path(__file__).parents[2]
PORTS = [8080, 8081, 8082, 8083, 8084, 8085]


def cluster_in(folder: Path) -> LocalCluster:
    """A cluster of three shards and two coordinators that was made and never started."""
    state.save(folder, state.new("mysql", 3, 2, PORTS))
    return LocalCluster(folder)


# Ports


def test_ports_are_consecutive_and_kept_from_others() -> None:
    with ports.reserved(4) as mine, ports.reserved(4) as others:
        assert mine == list(range(mine[0], mine[0] + 4))
        assert not set(mine) & set(others)


def test_a_server_can_listen_on_a_reserved_port() -> None:
    with ports.reserved(1) as (port,), socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ports.HOST, port))
        server.listen()
        assert not ports.is_free(port)


def test_a_taken_port_is_named() -> None:
    with socket.socket() as server:
        server.bind((ports.HOST, 0))
        server.listen()
        port = server.getsockname()[1]
        wanted = ports.reserved(3, first=port - 1)
        # Others may use its neighbours.
        told = rf"uses .*\b{port}\b.*; choose other ones with --port"
        with pytest.raises(LocalError, match=told), wanted:
            pass


def test_what_is_beyond_all_ports_is_named() -> None:
    with pytest.raises(LocalError, match="65536 is no port"), ports.reserved(3, first=65_534):
        pass


# The state file


def test_the_state_survives_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    made = state.new("mariadb", 3, 2, PORTS)
    state.save(tmp_path, made)
    assert state.load(tmp_path) == made
    assert (tmp_path / state.FILE).stat().st_mode & 0o777 == 0o600
    places = {process.name: process.port for process in made.processes}
    assert places == {"c1": 8080, "c2": 8081, "zk": 8082, "s1": 8083, "s2": 8084, "s3": 8085}


def test_a_folder_without_a_cluster_has_no_state(tmp_path: Path) -> None:
    assert state.load(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}'])
def test_a_damaged_state_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / state.FILE).write_text(text)
    with pytest.raises(LocalError, match=r"cluster\.json cannot be read"):
        state.load(tmp_path)


def test_two_clusters_share_neither_name_nor_passwords() -> None:
    one, other = (state.new("mysql", 1, 1, PORTS) for _ in range(2))
    assert one.cluster_id != other.cluster_id
    assert (
        len({s.admin_password for s in (one, other)} | {s.service_password for s in (one, other)})
        == 4
    )


# The cluster's description


def test_status_has_every_process_and_the_administrators_dsn(tmp_path: Path) -> None:
    told = cluster_in(tmp_path).status()
    assert set(told) == {"data_dir", "urls", "processes"}
    assert told["urls"] == ["http://127.0.0.1:8080", "http://127.0.0.1:8081"]
    assert [p["name"] for p in told["processes"]] == ["zk", "s1", "s2", "s3", "c1", "c2"]
    shard = told["processes"][1]
    password = state.load(tmp_path).admin_password  # type: ignore[union-attr]
    assert shard == {
        "name": "s1",
        "kind": "mysql",
        "pid": None,
        "port": 8083,
        "dsn": f"mysql://tandem_admin:{password}@127.0.0.1:8083/tandem",
        "running": False,
    }


def test_environment_leads_to_the_cluster(tmp_path: Path) -> None:
    told = cluster_in(tmp_path).environment()
    assert told["TANDEM_SHARDS"].startswith("s1=127.0.0.1:8083/tandem,s2=127.0.0.1:8084/tandem,")
    assert told["TANDEM_ZOOKEEPER_HOSTS"] == "127.0.0.1:8082"
    assert told["TANDEM_URL"] == "http://127.0.0.1:8080,http://127.0.0.1:8081"


def test_a_coordinator_gets_no_administrator(tmp_path: Path) -> None:
    told = coordinators.environment(cluster_in(tmp_path).environment(), "c2", 8081, tmp_path)
    assert told["TANDEM_COORDINATOR_ID"] == "c2"
    assert told["TANDEM_COORDINATOR_LISTEN"] == "127.0.0.1:8081"
    assert told["TANDEM_MYSQL_USER"] == "tandem"
    assert not coordinators.KEPT_FROM_COORDINATORS & set(told)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (Options(engine="mariadb"), "--engine mariadb"),
        (Options(shards=4), "--shards 4"),
        (Options(coordinators=1), "--coordinators 1"),
        (Options(port=9000), "--port 9000"),
    ],
)
def test_another_cluster_in_the_same_folder_is_refused(
    tmp_path: Path, options: Options, option: str
) -> None:
    cluster = cluster_in(tmp_path)
    with pytest.raises(LocalError, match=f"cluster of MySQL: shards 3, .*{option} does not fit"):
        cluster.up_servers(options)


@pytest.mark.parametrize("act", ["start", "stop"])
def test_an_unknown_process_is_named(tmp_path: Path, act: str) -> None:
    with pytest.raises(LocalError, match="no 's9'; it has zk, s1, s2, s3, c1, c2"):
        getattr(cluster_in(tmp_path), act)("s9")


def test_a_folder_without_a_cluster_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=f"no local cluster in {tmp_path}"):
        LocalCluster(tmp_path).status()
    LocalCluster(tmp_path).down()


# Command lines


@pytest.mark.parametrize("engine", ["mysql", "mariadb"])
def test_a_shard_is_durable_and_reads_no_file_of_the_machine(engine: servers.Engine) -> None:
    server = servers.Database(engine, "9.9.9", ("/somewhere/mysqld",))
    line = mysql.command(server, Path("/data/s2"), 8084, 2)
    assert line[:2] == ["/somewhere/mysqld", "--no-defaults"]
    assert "--innodb-flush-log-at-trx-commit=1" in line
    assert "--bind-address=127.0.0.1" in line
    assert "--port=8084" in line
    assert ("--log-bin=binlog" in line) == (engine == "mysql")
    assert ("--sync-binlog=1" in line) == (engine == "mysql")


def test_no_password_is_on_a_command_line() -> None:
    assert not any("password" in word.lower() for word in mysql.COMMON + mysql.MYSQL)
    assert coordinators.command() == [sys.executable, "-m", "coordinator"]


def test_zookeeper_listens_here_only(tmp_path: Path) -> None:
    file = zookeeper.configure(tmp_path / "zk", 8082)
    text = file.read_text()
    assert "clientPort=8082\nclientPortAddress=127.0.0.1\n" in text
    assert "admin.enableServer=false" in text
    line = zookeeper.command(servers.ZooKeeper("java", "a.jar:b.jar"), file)
    assert line[-2:] == ["org.apache.zookeeper.server.quorum.QuorumPeerMain", str(file)]


def test_prometheus_listens_here_only_and_keeps_no_more_than_it_may(tmp_path: Path) -> None:
    line = prometheus.command(servers.Prometheus("/p/prometheus", "/p/promtool"), tmp_path, 8086)
    assert line[0] == "/p/prometheus"
    assert "--web.listen-address=127.0.0.1:8086" in line
    assert {"--storage.tsdb.retention.time=2d", "--storage.tsdb.retention.size=1GB"} <= set(line)
    assert not any("local-assets" in word for word in line)


def test_prometheus_has_the_shipped_rules_and_the_coordinators(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    for ports_of in ({"c1": 8080}, {"c1": 8080, "c2": 8081}):
        prometheus.configure(tmp_path)
        prometheus.watch(tmp_path, ports_of)
    shipped = (ROOT / "config/prometheus/prometheus.yml").read_text()
    assert (tmp_path / "prometheus.yml").read_text() == shipped
    assert list((tmp_path / "rules").glob("*.yml"))
    assert yaml.safe_load((tmp_path / "targets/coordinators.yml").read_text()) == [
        {"targets": ["127.0.0.1:8080"], "labels": {"instance": "c1"}},
        {"targets": ["127.0.0.1:8081"], "labels": {"instance": "c2"}},
    ]


def test_without_a_configuration_there_is_no_monitoring(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="needs a checkout"):
        prometheus.configure(tmp_path / "data", tmp_path / "nowhere")


# Servers


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))", (9, 7, 4)),
        ("mysqld  Ver 10.11.18-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64", (10, 11, 18)),
        ("error while loading shared libraries", None),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, int, int] | None) -> None:
    assert servers.parse_version(text) == version


def fake_server(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mysqld").write_text(f"#!/bin/sh\necho '{text}'\n")
    (folder / "mysqld").chmod(0o755)


def test_the_named_folder_comes_before_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server(tmp_path / "named/mysql/bin", "mysqld  Ver 9.0.1 for Linux")
    fake_server(tmp_path / "path", "mysqld  Ver 8.4.0 for Linux")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setenv("TANDEM_SERVERS", str(tmp_path / "named"))
    assert servers.find_database("mysql", print).version == "9.0.1"
    monkeypatch.delenv("TANDEM_SERVERS")
    assert servers.find_database("mysql", print).version == "8.4.0"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mysqld  Ver 8.0.29 for Linux", "8.0.29; 8.0.30 or later is needed"),
        ("mysqld  Ver 10.11.4-MariaDB for Linux", "was not found, and this is no Debian"),
    ],
)
def test_without_a_fitting_server_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    fake_server(tmp_path / "path", text)
    monkeypatch.setattr(servers, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path / "path") + ":/bin/nowhere")
    monkeypatch.delenv("TANDEM_SERVERS", raising=False)
    # The fake is a shell script, so the shell is called by its path; apt-get is not to be found.
    with pytest.raises(LocalError) as raised:
        servers.find_database("mysql", print)
    assert why in str(raised.value)
    assert "compose.yaml" in str(raised.value)


def fake_prometheus(folder: Path, version: str, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        text = f"#!/bin/sh\necho '{name}, version {version}+ds (branch: debian/sid)' >&2\n"
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


BOTH = ("prometheus", "promtool")


def test_prometheus_is_found_with_its_tool_and_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_prometheus(tmp_path / "named/prometheus/usr/bin", "2.53.1", BOTH)
    pages = tmp_path / "named/prometheus/usr/share/prometheus/web"
    pages.mkdir(parents=True)
    monkeypatch.setenv("TANDEM_SERVERS", str(tmp_path / "named"))
    folder = tmp_path / "named/prometheus/usr/bin"
    assert servers.find_prometheus(print) == servers.Prometheus(
        str(folder / "prometheus"), str(folder / "promtool"), pages
    )


@pytest.mark.parametrize(
    ("version", "names", "why"),
    [
        ("2.41.0", BOTH, "2.41.0; 2.42.0 or later is needed"),
        ("2.53.1", ("prometheus",), "promtool does not run"),
    ],
)
def test_without_a_fitting_prometheus_the_error_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    names: tuple[str, ...],
    why: str,
) -> None:
    fake_prometheus(tmp_path / "path", version, names)
    monkeypatch.setattr(servers, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv("TANDEM_SERVERS", raising=False)
    with pytest.raises(LocalError, match=why):
        servers.find_prometheus(print)


def test_a_named_folder_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_SERVERS", str(tmp_path / "nowhere"))
    with pytest.raises(LocalError, match="which is no folder"):
        servers.find_database("mysql", print)


def test_a_folder_without_zookeeper_gives_no_class_path(tmp_path: Path) -> None:
    (tmp_path / "guava.jar").touch()
    assert servers.class_path(tmp_path) is None


# Processes


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "it.log"


@pytest.fixture
def sleeper(log: Path, tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A process with a child in its session, both deaf to a request to end."""
    line = "trap '' TERM; sleep 60 & echo started; wait"
    pid, mark = processes.spawn(["/bin/sh", "-c", line], log, {}, tmp_path)
    yield pid, mark
    processes.kill(pid, mark)


def test_a_process_is_known_by_its_start_too(sleeper: tuple[int, str]) -> None:
    pid, mark = sleeper
    assert processes.is_running(pid, mark)
    assert not processes.is_running(pid, "another start")
    processes.kill(pid, "another start")
    assert processes.is_running(pid, mark)


def test_kill_ends_the_whole_session(sleeper: tuple[int, str]) -> None:
    pid, mark = sleeper
    processes.kill(pid, mark)
    assert not processes.is_running(pid, mark)
    assert processes.session(pid) == []


def test_what_does_not_end_when_asked_is_killed(sleeper: tuple[int, str]) -> None:
    pid, mark = sleeper
    processes.stop([(pid, mark, 0.2)])
    assert not processes.is_running(pid, mark)
    assert processes.session(pid) == []


def test_stopping_waits_for_the_end(log: Path, tmp_path: Path) -> None:
    pid, mark = processes.spawn(["/bin/sleep", "60"], log, {}, tmp_path)
    assert not processes.wait_for_exit(pid, mark, 0.05)
    processes.stop([(pid, mark, 10.0)])
    assert processes.wait_for_exit(pid, mark, 0.0)


def test_the_end_of_the_log_is_told(log: Path, tmp_path: Path) -> None:
    line = "for i in 1 2 3; do echo line $i; done"
    pid, mark = processes.spawn(["/bin/sh", "-c", line], log, {}, tmp_path)
    assert processes.wait_for_exit(pid, mark, 10.0)
    assert processes.last_lines(log, 2) == "line 2\nline 3"
    assert processes.last_lines(tmp_path / "nowhere") == "(no log)"


def test_an_interruption_waits_for_the_end_of_the_block() -> None:
    seen: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append("interrupted"))
    try:
        with processes.uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            seen.append("block")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["block", "interrupted"]


# Files


def test_compose_starts_durable_servers_that_listen_here_only() -> None:
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(services) >= {"s1", "s2", "s3", "zookeeper"}
    for service in services.values():
        assert ":" in service["image"]
        if service.get("network_mode") == "host":
            told = [*service.get("command", []), *service.get("environment", {}).values()]
            assert any("127.0.0.1" in each for each in told)
        else:
            assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    for shard in ("s1", "s2", "s3"):
        assert {"--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1"} <= set(
            services[shard]["command"]
        )


@pytest.mark.parametrize("script", ["scripts/run", "scripts/lib/venv.sh"])
def test_the_scripts_are_bash(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.parametrize(("gib", "mib"), [(1, 128), (4, 256), (8, 512), (24, 1024), (512, 1024)])
def test_a_shard_takes_a_share_of_the_memory(gib: int, mib: int) -> None:
    assert mysql.buffer_pool_mib(gib << 30) == mib
