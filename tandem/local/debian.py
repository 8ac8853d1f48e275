"""Fetches servers from the Debian mirror that this machine uses already, into a folder.

Nothing outside the folder is read or written that apt does not read anyway: apt keeps its state
in the folder, packages are unpacked (not installed) there, and no root is needed. apt checks that
the lists are signed with the distribution's own keys, and that what it fetches is what they say.
Whatever the machine's configuration lets pass, nothing else is taken.

This module needs nothing but Python, because scripts/lib/venv.sh fetches pip with it:
`python3 -m tandem.local.debian NAME FOLDER` prints the folder with the unpacked packages.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tandem.local.errors import LocalError

Report = Callable[[str], None]

KEYRINGS = Path("/usr/share/keyrings")
# Parts of the archive with free software that its distribution maintains.
COMPONENTS = ("main", "universe")
# What older and newer apt say of a signature by a key that the machine does not have.
UNKNOWN_KEY = ("NO_PUBKEY", "Missing key")


class UnknownKey(LocalError):
    """A list is signed with a key that the machine does not have."""


@dataclass(frozen=True)
class Bundle:
    """Packages that together make one server."""

    name: str
    title: str
    # Of each tuple the first package that the archive has; () after it means: if there is one.
    packages: tuple[tuple[str, ...], ...]
    # Debian's stable releases lack it, so it comes from the suite sid, with its own C library.
    from_sid: bool = False
    with_dependencies: bool = True
    # Packages that must not be unpacked: the machine's own are used.
    without: tuple[str, ...] = ()


BUNDLES = {
    bundle.name: bundle
    for bundle in (
        Bundle(
            "mysql",
            "MySQL",
            (
                ("mysql-server-core", "mysql-server-core-8.4", "mysql-server-core-8.0"),
                ("mysql-client-core", "mysql-client-core-8.4", "mysql-client-core-8.0"),
            ),
            from_sid=True,
        ),
        Bundle("mariadb", "MariaDB", (("mariadb-server-core",),)),
        # Its declared dependencies are hundreds (build tools, desktop libraries); a server needs
        # these.
        Bundle(
            "zookeeper",
            "ZooKeeper",
            (
                ("libzookeeper-java",),
                ("libslf4j-java",),
                ("libnetty-java",),
                ("libnetty-common-java", ""),
                ("libnetty-buffer-java", ""),
                ("libsnappy-java",),
                ("libdropwizard-metrics-java",),
            ),
            with_dependencies=False,
        ),
        Bundle("pip", "pip", (("python3-pip-whl",),), with_dependencies=False),
        # Its programs need nothing but the C library; the others are for its pages.
        Bundle(
            "prometheus",
            "Prometheus",
            (
                ("prometheus",),
                ("fonts-glyphicons-halflings", ""),
                ("libjs-bootstrap4", ""),
                ("libjs-d3", ""),
                ("libjs-eonasdan-bootstrap-datetimepicker", ""),
                ("libjs-jquery", ""),
                ("libjs-jquery-hotkeys", ""),
                ("libjs-moment", ""),
                ("libjs-moment-timezone", ""),
                ("libjs-mustache", ""),
                ("libjs-popper.js", ""),
                ("libjs-rickshaw", ""),
            ),
            with_dependencies=False,
        ),
        Bundle("java", "Java", (("default-jre-headless",),), without=("libc6",)),
        # The program of redis-server is in redis-tools. What it needs besides these every Debian
        # has; the service and its scripts are not used.
        Bundle(
            "redis",
            "Redis",
            (
                ("redis-server",),
                ("redis-tools",),
                ("libjemalloc2",),
                ("liblzf1", ""),
                ("libatomic1", ""),
                ("libssl3t64", "libssl3"),
                ("libsystemd0", ""),
            ),
            with_dependencies=False,
        ),
    )
}


def is_debian() -> bool:
    """Whether this machine has what fetching needs: apt, dpkg and a release with a name."""
    tools = ("apt-get", "apt-cache", "dpkg")
    return all(shutil.which(tool) for tool in tools) and "VERSION_CODENAME" in _os_release()


def fetch(bundle: Bundle, folder: Path, report: Report) -> Path:
    """The folder `folder`/NAME with the unpacked packages, fetched if it is not there yet.

    The folder appears under its name only when it is complete, so an interrupted fetch is simply
    done again. Of two processes that fetch at once, one waits for the other.
    """
    prefix = folder / bundle.name
    if prefix.is_dir():
        return prefix
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{bundle.name}.lock", bundle, report):
        if not prefix.is_dir():
            work = folder / f"{bundle.name}.part"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                _fetch_into(work, bundle, report)
                (work / "prefix").rename(prefix)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return prefix


@contextmanager
def _locked(path: Path, bundle: Bundle, report: Report) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"Waiting for another process that fetches {bundle.title}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch_into(work: Path, bundle: Bundle, report: Report) -> None:
    report(f"Fetching {bundle.title}: reading the package lists")
    apt = _Apt(work, bundle, report)
    apt.update()
    names = [name for choice in bundle.packages if (name := apt.first_known(choice))]
    archives = apt.download(names)
    unpack(archives, work / "prefix", bundle, report)


def unpack(archives: list[Path], prefix: Path, bundle: Bundle, report: Report) -> None:
    """Unpack packages and make the links between their files point into `prefix`."""
    prefix.mkdir()
    for number, archive in enumerate(archives, start=1):
        if archive.name.partition("_")[0] in bundle.without:
            continue
        report(f"Unpacking {bundle.title}: {number} of {len(archives)} packages")
        subprocess.run(["dpkg", "-x", archive, prefix], check=True)
        archive.unlink()
    for path in prefix.rglob("*"):
        if path.is_symlink():
            target = os.readlink(path)
            inside = prefix / target.lstrip("/")
            if target.startswith("/") and os.path.lexists(inside):
                path.unlink()
                path.symlink_to(os.path.relpath(inside, path.parent))


class _Apt:
    """apt-get with a state of its own inside a folder."""

    def __init__(self, work: Path, bundle: Bundle, report: Report) -> None:
        self._work = work
        self._bundle = bundle
        self._report = report
        self._conf = work / "apt.conf"
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True)
        (work / "status").touch()
        self._conf.write_text(_configuration(work))

    def update(self) -> None:
        """Read the lists of the bundle's suite."""
        keyring = _keyring(KEYRINGS)
        from_sid = self._bundle.from_sid and _os_release().get("ID") == "debian"
        if not from_sid:
            self._use(_own_sources(), keyring)
            self._run("apt-get", "update")
            return
        sources = [(_mirror(), "sid", "main")]
        try:
            self._use(sources, keyring)
            self._run("apt-get", "update")
        except UnknownKey:
            # sid is signed with a key younger than this machine's. The machine's own release
            # brings new keys in a package that is signed with the old ones.
            self._use(_own_sources(), keyring)
            self._run("apt-get", "update")
            (package,) = self._download_only(["debian-archive-keyring"])
            subprocess.run(["dpkg", "-x", package, self._work / "keys"], check=True)
            package.unlink()
            self._use(sources, _keyring(self._work / "keys/usr/share/keyrings"))
            self._run("apt-get", "update")

    def first_known(self, names: tuple[str, ...]) -> str:
        """The first of `names` that the archive has, or "" if that is one of them."""
        for name in names:
            show = ["apt-cache", "-c", str(self._conf), "show", name]
            if name == "" or subprocess.run(show, capture_output=True).returncode == 0:
                return name
        raise LocalError(
            f"the package archive of this machine has no {' or '.join(names)}. "
            f"{advice(self._bundle.title)}"
        )

    def download(self, names: list[str]) -> list[Path]:
        """The archives of the packages, with all they need if the bundle says so."""
        if not self._bundle.with_dependencies:
            return self._download_only(names)
        options = ("--download-only", "--no-install-recommends", "--yes")
        self._run("apt-get", "install", *options, *names)
        return sorted((self._work / "cache/archives").glob("*.deb"))

    def _download_only(self, names: list[str]) -> list[Path]:
        folder = self._work / "cache/archives"
        self._run("apt-get", "download", *names, cwd=folder)
        return sorted(folder.glob("*.deb"))

    def _use(self, sources: list[tuple[str, str, str]], keyring: Path) -> None:
        signed_by = f"[signed-by={keyring}]"
        lines = [f"deb {signed_by} {site} {suite} {parts}\n" for site, suite, parts in sources]
        (self._work / "sources.list").write_text("".join(lines))

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> None:
        """Run apt, report how far it is, and raise with its own words if it fails."""
        with subprocess.Popen(
            [program, "-c", str(self._conf), "-q", *arguments],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            try:
                last = self._follow(process.stdout)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            telling = [line for line in last if line.startswith(("E:", "W:", "Err"))] or last
            title = self._bundle.title
            said = " ".join(telling).rstrip(".")
            # One exit code stands for all that can fail; only words tell what it was.
            kind = UnknownKey if any(words in said for words in UNKNOWN_KEY) else LocalError
            raise kind(f"fetching {title} with apt-get failed: {said}. {advice(title)}")

    def _follow(self, output: IO[str]) -> list[str]:
        """Report what apt has got so far; returns its last lines."""
        last: deque[str] = deque(maxlen=12)
        total, got = "", 0
        for line in output:
            last.append(line.rstrip())
            words = line.split()
            if "newly" in words:
                total = f" of {words[words.index('newly') - 1]}"
            if line.startswith("Get:"):
                got += 1
                self._report(f"Fetching {self._bundle.title}: {got}{total} files")
        return list(last)


def advice(title: str) -> str:
    """What a person can do where the servers cannot be fetched."""
    return (
        f"Install {title} yourself so that it is on the PATH, or set TANDEM_SERVERS to a folder "
        "that holds it, or start the servers of compose.yaml and name them in config/tandem.toml"
    )


def _configuration(work: Path) -> str:
    """apt's configuration: the machine's (a proxy, say) with every folder moved into `work`.

    The machine's hooks are left out: they clean and refresh the machine's own caches.
    """
    return "\n".join(
        (
            f'Dir::Etc::sourcelist "{work}/sources.list";',
            'Dir::Etc::sourceparts "/dev/null";',
            'Dir::Etc::preferences "/dev/null";',
            'Dir::Etc::preferencesparts "/dev/null";',
            f'Dir::State "{work}/state";',
            f'Dir::State::Lists "{work}/state/lists";',
            f'Dir::State::status "{work}/status";',
            f'Dir::Cache "{work}/cache";',
            # The user _apt cannot write into a folder of somebody else's.
            'APT::Sandbox::User "root";',
            'APT::Update::Error-Mode "any";',
            # Each of these may be allowed in the machine's own configuration.
            'APT::Get::AllowUnauthenticated "false";',
            'Acquire::AllowInsecureRepositories "false";',
            'Acquire::AllowWeakRepositories "false";',
            'Acquire::AllowDowngradeToInsecureRepositories "false";',
            'Acquire::Check-Valid-Until "true";',
            'Acquire::Languages "none";',
            'Acquire::Retries "3";',
            "#clear APT::Update::Pre-Invoke;",
            "#clear APT::Update::Post-Invoke;",
            "#clear APT::Update::Post-Invoke-Success;",
            "#clear DPkg::Pre-Invoke;",
            "#clear DPkg::Pre-Install-Pkgs;",
            "#clear DPkg::Post-Invoke;",
            "#clear Acquire::IndexTargets::deb::DEP-11;",
            "",
        )
    )


def _keyring(folder: Path) -> Path:
    """The distribution's own keys: those of others that the machine trusts do not count here."""
    distribution = _os_release().get("ID", "debian")
    names = [f"{distribution}-archive-keyring.{end}" for end in ("gpg", "pgp")]
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise LocalError(
        f"there is no {' or '.join(names)} in {folder}, so that the signatures of packages cannot "
        f"be verified: install {distribution}-archive-keyring. Nothing was fetched"
    )


def _indexes() -> list[tuple[str, str, str]]:
    """Site, suite and component of everything this machine's apt reads."""
    command = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)"]
    answer = subprocess.run(command, capture_output=True, text=True)
    rows = [line.split() for line in answer.stdout.splitlines()]
    return [(row[0], row[1], row[2]) for row in dict.fromkeys(map(tuple, rows)) if len(row) == 3]


def _mirror() -> str:
    """The address from which this machine has its own release."""
    codename = _os_release()["VERSION_CODENAME"]
    sites = [site for site, suite, part in _indexes() if (suite, part) == (codename, "main")]
    if not sites:
        raise LocalError(
            f"this machine's apt has no source for its own release {codename}, from which the "
            "servers could be fetched; see /etc/apt/sources.list and /etc/apt/sources.list.d"
        )
    name = _os_release().get("ID", "debian")
    return next((site for site in sites if site.rstrip("/").endswith(f"/{name}")), sites[0])


def _own_sources() -> list[tuple[str, str, str]]:
    """The machine's own release with its updates, without what others have added to it."""
    codename = _os_release()["VERSION_CODENAME"]
    mirror = _mirror()
    return [
        (site, suite, part)
        for site, suite, part in _indexes()
        if part in COMPONENTS
        and (
            (site == mirror and suite in (codename, f"{codename}-updates"))
            or suite == f"{codename}-security"
        )
    ]


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip('"') for name, _, value in pairs}


if __name__ == "__main__":
    try:
        print(
            fetch(
                BUNDLES[sys.argv[1]], Path(sys.argv[2]), lambda text: print(text, file=sys.stderr)
            )
        )
    except LocalError as problem:
        sys.exit(f"error: {problem}")
