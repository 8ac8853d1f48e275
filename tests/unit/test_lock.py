"""What scripts/run and scripts/test install is written down, with hashes, and fits setup.cfg."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]
EXTRAS = ["tandem", "test", "bench", "lab", "eventstore"]
# The Pythons and machines that scripts/lib/venv.sh says.
ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    for python in ("3.11", "3.12", "3.13", "3.14")
    for machine in ("x86_64", "aarch64")
]


def locked(extra: str) -> list[tuple[Requirement, list[str]]]:
    """Each package of a file with its hashes."""
    text = (PROJECT / f"requirements/{extra}.txt").read_text()
    found = []
    for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        line, *hashes = re.split(r"\s*\\\n\s*", entry.strip())
        found.append((Requirement(line), hashes))
    return found


def wanted(extra: str) -> list[Requirement]:
    """What setup.cfg asks for, and what builds Tandem."""
    parsed = configparser.ConfigParser()
    parsed.read(PROJECT / "setup.cfg")
    lines = parsed["options"]["install_requires"].splitlines()
    lines += parsed["options.extras_require"].get(extra, "").splitlines()
    lines += tomllib.loads((PROJECT / "pyproject.toml").read_text())["build-system"]["requires"]
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_package_has_one_version_and_its_hashes(extra: str) -> None:
    for requirement, hashes in locked(extra):
        assert [one.operator for one in requirement.specifier] == ["=="]
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), requirement
    # From where they come is the machine's to say.
    assert "://" not in (PROJECT / f"requirements/{extra}.txt").read_text()


@pytest.mark.parametrize("extra", EXTRAS)
def test_it_is_what_setup_cfg_allows(extra: str) -> None:
    """Else `scripts/lock` was forgotten."""
    for environment in ENVIRONMENTS:
        versions = {
            canonicalize_name(requirement.name): next(iter(requirement.specifier)).version
            for requirement, _ in locked(extra)
            if requirement.marker is None or requirement.marker.evaluate(environment)
        }
        for requirement in wanted(extra):
            version = versions.get(canonicalize_name(requirement.name))
            assert version, f"{requirement} is not in requirements/{extra}.txt"
            assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("extra", ["tandem", "bench", "lab"])
def test_all_have_the_versions_that_are_tested(extra: str) -> None:
    def versions(of: str) -> set[tuple[str, str]]:
        return {(found.name, str(found.specifier)) for found, _ in locked(of)}

    assert versions(extra) <= versions("test")
