"""Finds the real servers: in the folder TANDEM_SERVERS, on the PATH, or fetched from Debian."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tandem.local import debian
from tandem.local.errors import LocalError
from tandem.local.progress import Report

# What a shard is: a database on one of these servers, or a ledger group.
DatabaseEngine = Literal["mysql", "mariadb"]
Engine = Literal["mysql", "mariadb", "eventstore"]
TITLES = {"mysql": "MySQL", "mariadb": "MariaDB", "eventstore": "a ledger group"}
OLDEST = {"mysql": (8, 0, 30), "mariadb": (10, 6, 0)}
PROGRAMS = {"mysql": ("mysqld",), "mariadb": ("mariadbd", "mysqld")}
# The first with `keep_firing_for`, which the alert rules use.
OLDEST_PROMETHEUS = (2, 42, 0)
# Debian keeps servers where only root's PATH leads.
SYSTEM_FOLDERS = (Path("/usr/sbin"), Path("/usr/local/sbin"))
PROJECT = Path(__file__).resolve().parents[2]
# How long `PROGRAM --version` may take.
VERSION_TIMEOUT_S = 20


@dataclass(frozen=True)
class Database:
    """A MySQL or MariaDB server program and how to call it."""

    engine: DatabaseEngine
    version: str
    # The program, after its own loader if it came with a C library of its own.
    program: tuple[str, ...]
    # Where its files are, if not where it was built to look for them.
    options: tuple[str, ...] = ()
    # MariaDB only: the folder with the SQL that makes the system tables.
    share: Path | None = None


@dataclass(frozen=True)
class ZooKeeper:
    """Java and the jars of ZooKeeper."""

    java: str
    class_path: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prometheus:
    """Prometheus and the tool that checks and tests its rules."""

    program: str
    promtool: str
    # The folder with its pages, where a build has them apart and they were moved.
    pages: Path | None = None


def download_folder() -> Path:
    """Where fetched servers are kept: in the checkout, or for an installed Tandem in the cache."""
    if (PROJECT / "setup.cfg").exists():
        return PROJECT / ".servers"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tandem" / "servers"


def find_database(engine: DatabaseEngine, report: Report) -> Database:
    """The server to run shards with. Raises LocalError if there is none and none can be fetched."""
    wrong: list[str] = []
    for prefix in named_prefixes(engine):
        if found := _database_in(prefix, engine, wrong):
            return found
    for program in on_path(PROGRAMS[engine]):
        if version := _right_version(engine, (str(program),), wrong):
            return Database(engine, version, (str(program),), share=_share(program.parents[1]))
    fetched = fetch_missing(engine, TITLES[engine], wrong, report)
    if found := _database_in(fetched, engine, wrong):
        return found
    raise LocalError(
        f"the {TITLES[engine]} in {fetched} does not run: {'; '.join(wrong)}. Delete that folder "
        f"to have it fetched again. {debian.advice(TITLES[engine])}"
    )


def find_zookeeper(report: Report) -> ZooKeeper:
    """Java and ZooKeeper's jars. Raises LocalError if they are missing and cannot be fetched."""
    java, environment = _find_java(report)
    return ZooKeeper(java, _find_jars(report), environment)


def find_prometheus(report: Report) -> Prometheus:
    """Prometheus with promtool. Raises LocalError if it is missing and cannot be fetched."""
    wrong: list[str] = []
    for prefix in named_prefixes("prometheus"):
        if found := _prometheus_in(prefix, wrong):
            return found
    for program in on_path(("prometheus",)):
        if found := _prometheus_at(program, wrong):
            return found
    fetched = fetch_missing("prometheus", "Prometheus", wrong, report)
    if found := _prometheus_in(fetched, wrong):
        return found
    raise LocalError(
        f"the Prometheus in {fetched} does not run: {'; '.join(wrong)}. Delete that folder to have "
        f"it fetched again. {debian.advice('Prometheus')}"
    )


def _prometheus_in(prefix: Path, wrong: list[str]) -> Prometheus | None:
    """The one below `prefix`: the project's archive, an installation, or unpacked packages."""
    for folder in (prefix, prefix / "bin", prefix / "usr/bin"):
        program = folder / "prometheus"
        if program.is_file() and (found := _prometheus_at(program, wrong)):
            pages = prefix / "usr/share/prometheus/web"
            return replace(found, pages=pages if pages.is_dir() else None)
    return None


def _prometheus_at(program: Path, wrong: list[str]) -> Prometheus | None:
    """The program and its tool beside it if they are new enough; else `wrong` says why not."""
    promtool = program.with_name("promtool")
    for each in (program, promtool):
        try:
            told = subprocess.run(
                [each, "--version"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=VERSION_TIMEOUT_S,
            ).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            wrong.append(f"{each} does not run: {error}")
            return None
        version = re.search(r", version (\d+)\.(\d+)\.(\d+)", told)
        if version is None:
            wrong.append(f"{each} does not tell its version")
            return None
        if tuple(map(int, version.groups())) < OLDEST_PROMETHEUS:
            needs = ".".join(map(str, OLDEST_PROMETHEUS))
            wrong.append(f"{each} is {'.'.join(version.groups())}; {needs} or later is needed")
            return None
    return Prometheus(str(program), str(promtool))


def _database_in(prefix: Path, engine: DatabaseEngine, wrong: list[str]) -> Database | None:
    """The server below `prefix`, which is an installation or the unpacked packages of one."""
    for root in (prefix, prefix / "usr"):
        for name in PROGRAMS[engine]:
            for folder in ("sbin", "bin", "libexec"):
                program = root / folder / name
                if not os.access(program, os.X_OK):
                    continue
                command = (*_loader(prefix), str(program))
                if version := _right_version(engine, command, wrong):
                    return Database(engine, version, command, _places(root), _share(root))
    return None


def _loader(prefix: Path) -> tuple[str, ...]:
    """Packages of another release need the C library they were built with, and its loader."""
    for loader in (*prefix.glob("usr/lib/*/ld-linux*.so.*"), *prefix.glob("lib/*/ld-linux*.so.*")):
        return str(loader), "--library-path", library_path(prefix)
    return ()


def library_path(prefix: Path) -> str:
    """The folders of `prefix` with shared libraries, as the loader takes them."""
    folders = (*prefix.glob("usr/lib/*-linux-gnu*"), *prefix.glob("lib/*-linux-gnu*"))
    return ":".join(str(folder) for folder in folders)


def _places(root: Path) -> tuple[str, ...]:
    """The options that tell a server moved to `root` where its files are."""
    places: list[str] = []
    for share in (root / "share/mysql", root / "share/mariadb", root / "share"):
        if (share / "charsets").is_dir():
            places += [f"--lc-messages-dir={share}", f"--character-sets-dir={share / 'charsets'}"]
            break
    for plugins in ("lib/mysql/plugin", "lib/plugin", "lib64/mysql/plugin", "lib/mariadb/plugin"):
        if (root / plugins).is_dir():
            places.append(f"--plugin-dir={root / plugins}")
            break
    return tuple(places)


def _share(root: Path) -> Path | None:
    folders = (root / "share/mysql", root / "share/mariadb", root / "share")
    return next((f for f in folders if (f / "mysql_system_tables.sql").exists()), None)


def _right_version(
    engine: DatabaseEngine, command: tuple[str, ...], wrong: list[str]
) -> str | None:
    """The server's version if it is of this engine and new enough; else `wrong` says why not."""
    try:
        answer = subprocess.run(
            [*command, "--no-defaults", "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        wrong.append(f"{command[-1]} does not run: {error}")
        return None
    version = parse_version(answer.stdout)
    if answer.returncode != 0 or version is None:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        wrong.append(f"{command[-1]} does not run: {said[-1] if said else answer.returncode}")
        return None
    if ("MariaDB" in answer.stdout) != (engine == "mariadb"):
        return None
    if version < OLDEST[engine]:
        has, needs = (".".join(map(str, v)) for v in (version, OLDEST[engine]))
        wrong.append(f"{command[-1]} is {TITLES[engine]} {has}; {needs} or later is needed")
        return None
    return ".".join(map(str, version))


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version in what `mysqld --version` prints."""
    found = re.search(r"Ver (\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _find_java(report: Report) -> tuple[str, dict[str, str]]:
    home = os.environ.get("JAVA_HOME")
    candidates = [
        *(java for prefix in named_prefixes("java") for java in _java_in(prefix)),
        *([(str(Path(home) / "bin/java"), {})] if home else []),
        *((str(program), {}) for program in on_path(("java",))),
    ]
    wrong: list[str] = []
    for java, environment in candidates:
        if _java_runs(java, environment, wrong):
            return java, environment
    fetched = fetch_missing("java", "Java", wrong, report)
    for java, environment in _java_in(fetched):
        if _java_runs(java, environment, wrong):
            return java, environment
    raise LocalError(f"the Java in {fetched} does not run: {wrong[-1:]}. {debian.advice('Java')}")


def _java_in(prefix: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for program in (*prefix.glob("usr/lib/jvm/*/bin/java"), *prefix.glob("bin/java")):
        # Packages of this machine's own release: its C library serves, the rest is in the prefix.
        # (Java starts itself again, so the loader of another release would not do.)
        path = library_path(prefix)
        yield str(program), {"LD_LIBRARY_PATH": path} if path else {}


def _java_runs(java: str, environment: dict[str, str], wrong: list[str]) -> bool:
    """Whether it is a real Java: macOS has a `java` that only says that there is none."""
    try:
        answer = subprocess.run(
            [java, "-version"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        wrong.append(f"{java}: {error}")
        return False
    if answer.returncode != 0:
        wrong.append(f"{java}: {answer.stderr.strip()}")
    return answer.returncode == 0


def _find_jars(report: Report) -> str:
    folders: list[Path] = []
    for prefix in named_prefixes("zookeeper"):
        folders += [prefix / "usr/share/java", prefix / "share/java", prefix / "lib"]
    for script in on_path(("zkServer.sh", "zkServer")):
        root = script.resolve().parents[1]
        folders += [root / "lib", root / "libexec/lib"]
    folders.append(Path("/usr/share/java"))
    for folder in folders:
        if path := class_path(folder):
            return path
    fetched = fetch_missing("zookeeper", "ZooKeeper", [], report)
    if path := class_path(fetched / "usr/share/java"):
        return path
    raise LocalError(
        f"the ZooKeeper in {fetched} is not complete. Delete that folder to have it fetched again. "
        f"{debian.advice('ZooKeeper')}"
    )


def class_path(folder: Path) -> str | None:
    """What a ZooKeeper server needs from a folder of jars; None if it is not there."""
    conf = folder.parent / "conf"
    if conf.is_dir() and any(folder.glob("zookeeper-[0-9]*.jar")):
        # The archive as the ZooKeeper project gives it out; conf/ says what it logs.
        return f"{conf}:{folder}/*"
    # Debian's folder holds everybody's jars, and under plain names.
    names = ("zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-simple")
    needed = [folder / f"{name}.jar" for name in (*names, "snappy-java", "metrics-core")]
    netty = [jar for jar in folder.glob("netty-*.jar") if not re.search(r"\d\.jar$", jar.name)]
    if not netty or not all(jar.exists() for jar in needed):
        return None
    return ":".join(str(jar) for jar in (*needed, *sorted(netty)))


def named_prefixes(name: str) -> Iterator[Path]:
    """Where TANDEM_SERVERS says that servers are: there, or in a folder of theirs below it."""
    named = os.environ.get("TANDEM_SERVERS")
    if not named:
        return
    folder = Path(named).expanduser().absolute()
    if not folder.is_dir():
        raise LocalError(f"TANDEM_SERVERS names {named}, which is no folder")
    yield from (
        folder / name,
        folder / name / "usr/local",
        folder,
        *sorted(folder.glob(f"{name}-*")),
    )


def on_path(names: Iterable[str]) -> Iterator[Path]:
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    for name in names:
        for folder in dict.fromkeys((*folders, *SYSTEM_FOLDERS)):
            if os.access(folder / name, os.X_OK) and (folder / name).is_file():
                yield folder / name


def fetch_missing(name: str, title: str, wrong: list[str], report: Report) -> Path:
    if shutil.which("apt-get") is None or not debian.is_debian():
        found = f" ({'; '.join(wrong)})" if wrong else ""
        raise LocalError(
            f"{title} was not found{found}, and this is no Debian from which it could be fetched. "
            f"{debian.advice(title)}"
        )
    return debian.fetch(debian.BUNDLES[name], download_folder(), report)
