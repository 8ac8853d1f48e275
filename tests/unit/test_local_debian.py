"""Fetching servers from Debian, as far as no mirror is needed for it."""

import hashlib
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from tandem.local import debian
from tandem.local.errors import LocalError

JAVA = debian.BUNDLES["java"]


def silent(text: str) -> None:
    """Report to nobody."""


def package(folder: Path, name: str, files: dict[str, str], links: dict[str, str]) -> Path:
    """A Debian package with these files and symbolic links."""
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: test\n"
    )
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for path, target in links.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    archive = folder / f"{name}_1_all.deb"
    command = ["dpkg-deb", "--build", "--root-owner-group", str(root), str(archive)]
    subprocess.run(command, check=True, capture_output=True)
    return archive


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is needed")
def test_links_lead_into_the_folder_and_libc_is_left_out(tmp_path: Path) -> None:
    java = package(
        tmp_path,
        "openjdk",
        {"etc/java/jvm.cfg": "-server KNOWN"},
        {"usr/lib/jvm/lib/jvm.cfg": "/etc/java/jvm.cfg", "usr/lib/cacerts": "/etc/ssl/nowhere"},
    )
    libc = package(tmp_path, "libc6", {"usr/lib/libc.so.6": "not wanted"}, {})
    prefix = tmp_path / "prefix"
    debian.unpack([java, libc], prefix, JAVA, silent)
    link = prefix / "usr/lib/jvm/lib/jvm.cfg"
    assert link.read_text() == "-server KNOWN"
    assert link.resolve().is_relative_to(prefix.resolve())
    assert os.readlink(prefix / "usr/lib/cacerts") == "/etc/ssl/nowhere"
    assert not (prefix / "usr/lib/libc.so.6").exists()


def test_an_interrupted_fetch_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def fetch_into(work: Path, bundle: debian.Bundle, report: debian.Report) -> None:
        calls.append(work)
        (work / "prefix").mkdir()
        if len(calls) == 1:
            raise LocalError("the mirror went away")
        (work / "prefix/bin").mkdir()

    monkeypatch.setattr(debian, "_fetch_into", fetch_into)
    with pytest.raises(LocalError, match="went away"):
        debian.fetch(JAVA, tmp_path / ".servers", silent)
    assert not (tmp_path / ".servers/java").exists()
    (tmp_path / ".servers/java.part/prefix").mkdir(parents=True)  # as a killed fetch leaves it
    prefix = debian.fetch(JAVA, tmp_path / ".servers", silent)
    assert prefix == tmp_path / ".servers/java"
    assert [path.name for path in prefix.iterdir()] == ["bin"]
    assert debian.fetch(JAVA, tmp_path / ".servers", silent) == prefix
    assert len(calls) == 2


class Archive:
    """An archive in a folder with one package, signed with a key of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "debian"
        self.folder.mkdir()
        self._home = folder / "gnupg"
        self._home.mkdir(mode=0o700)
        self.keyrings = folder / "keyrings"
        self.keyrings.mkdir()
        self._gpg("--quick-generate-key", "archive", "ed25519", "sign", "never")
        self._gpg("--output", str(self.keyrings / "debian-archive-keyring.gpg"), "--export")
        self.package = package(self.folder, "openjdk", {"usr/bin/java": "it runs"}, {})
        data = self.package.read_bytes()
        lines = [
            "Package: default-jre-headless",
            "Version: 1",
            "Architecture: all",
            f"Filename: {self.package.name}",
            f"Size: {len(data)}",
            f"SHA256: {hashlib.sha256(data).hexdigest()}",
        ]
        index = self.folder / "dists/bookworm/main/binary-amd64/Packages"
        index.parent.mkdir(parents=True)
        index.write_text("\n".join([*lines, ""]))
        name = index.relative_to(self.folder / "dists/bookworm")
        entry = f" {hashlib.sha256(index.read_bytes()).hexdigest()} {index.stat().st_size} {name}"
        self.release = index.parents[2] / "InRelease"
        self.text = "\n".join(
            [
                "Origin: test",
                "Suite: bookworm",
                "Codename: bookworm",
                "Date: " + format_datetime(datetime.now(UTC), usegmt=True),
                "Architectures: amd64",
                "Components: main",
                "SHA256:",
                entry,
                "",
            ]
        )
        self.sign()

    def _gpg(self, *arguments: str, given: str = "") -> None:
        command = ["gpg", "--homedir", str(self._home), "--batch", "--yes", "--passphrase", ""]
        subprocess.run(
            [*command, *arguments], input=given.encode(), check=True, capture_output=True
        )

    def sign(self) -> None:
        self._gpg("--clearsign", "--output", str(self.release), given=self.text)


NEEDS_APT = pytest.mark.skipif(
    not all(map(shutil.which, ("gpg", "apt-get", "dpkg-deb"))), reason="apt and gpg are needed"
)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """That of this machine, whose own configuration lets everything pass."""
    made = Archive(tmp_path)
    careless = tmp_path / "careless.conf"
    careless.write_text(
        'APT::Get::AllowUnauthenticated "true";\nAcquire::AllowInsecureRepositories "true";\n'
        'Acquire::AllowWeakRepositories "true";\nAPT::Architecture "amd64";\n'
        'APT::Architectures "amd64";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(careless))
    monkeypatch.setattr(
        debian, "_os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    )
    site = f"copy:{made.folder}"
    monkeypatch.setattr(debian, "_indexes", lambda: [(site, "bookworm", "main")])
    monkeypatch.setattr(debian, "_mirror", lambda: site)
    monkeypatch.setattr(debian, "KEYRINGS", made.keyrings)
    return made


@NEEDS_APT
def test_what_is_signed_is_fetched(archive: Archive, tmp_path: Path) -> None:
    prefix = debian.fetch(JAVA, tmp_path / ".servers", silent)
    assert (prefix / "usr/bin/java").read_text() == "it runs"


@NEEDS_APT
@pytest.mark.parametrize(
    "harm", ["not signed", "changed list", "changed package", "another's key", "no keys"]
)
def test_what_is_not_signed_so_is_refused(archive: Archive, tmp_path: Path, harm: str) -> None:
    keyring = next(archive.keyrings.iterdir())
    if harm == "not signed":
        archive.release.unlink()
        archive.release.with_name("Release").write_text(archive.text)
    elif harm == "changed list":
        signed = archive.release.read_text()
        archive.release.write_text(signed.replace("Origin: test", "Origin: Debian"))
    elif harm == "changed package":
        data = archive.package.read_bytes()
        archive.package.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "another's key":
        (tmp_path / "other").mkdir()
        keyring.write_bytes(next(Archive(tmp_path / "other").keyrings.iterdir()).read_bytes())
    else:
        keyring.unlink()
    with pytest.raises(LocalError) as caught:
        debian.fetch(JAVA, tmp_path / ".servers", silent)
    assert re.search(
        r"not signed|signatures?|Hash Sum mismatch|NO_PUBKEY|Missing key|Splitting",
        str(caught.value),
    )
    assert not (tmp_path / ".servers/java").exists()


@pytest.mark.parametrize(
    ("rows", "sources"),
    [
        (
            [
                ("http://others.example/debian", "stable", "main"),
                ("http://mirror.example/debian", "bookworm", "main"),
                ("http://mirror.example/debian", "bookworm", "contrib"),
                ("http://mirror.example/debian", "bookworm-updates", "main"),
                ("http://mirror.example/debian-security", "bookworm-security", "main"),
            ],
            [
                ("http://mirror.example/debian", "bookworm", "main"),
                ("http://mirror.example/debian", "bookworm-updates", "main"),
                ("http://mirror.example/debian-security", "bookworm-security", "main"),
            ],
        ),
        (
            [
                ("http://sql.example/repo", "bookworm", "main"),
                ("http://mirror.example/debian", "bookworm", "main"),
            ],
            [("http://mirror.example/debian", "bookworm", "main")],
        ),
    ],
)
def test_only_the_distributions_own_sources_are_used(
    monkeypatch: pytest.MonkeyPatch,
    rows: list[tuple[str, str, str]],
    sources: list[tuple[str, str, str]],
) -> None:
    release = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr(debian, "_os_release", lambda: release)
    monkeypatch.setattr(debian, "_indexes", lambda: rows)
    assert debian._own_sources() == sources


def test_a_machine_without_sources_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "_os_release", lambda: {"VERSION_CODENAME": "bookworm"})
    monkeypatch.setattr(debian, "_indexes", list)
    with pytest.raises(LocalError, match="no source for its own release bookworm"):
        debian._mirror()
