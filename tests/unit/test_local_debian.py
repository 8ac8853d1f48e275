"""Fetching servers from Debian, as far as no mirror is needed for it."""

import os
import shutil
import subprocess
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


def test_signatures_are_always_checked(tmp_path: Path) -> None:
    text = debian._configuration(tmp_path)
    assert 'APT::Get::AllowUnauthenticated "false";' in text
    assert 'Acquire::AllowInsecureRepositories "false";' in text


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
