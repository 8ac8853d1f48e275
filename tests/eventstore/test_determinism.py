"""The same commands make the same bytes of list and the same state (rule E4): with another seed of
`hash`, another number of threads, another locale, zone and key of tables, and on another machine,
for which stands code that is compiled for any.

Given are what a list takes from the world: the clock, a node's number, and what it draws.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from eventstore.machine.machine import VERSION
from tests.eventstore.golden import make

_ROOT, _KEPT = Path(__file__).parents[2], Path(__file__).parent / "golden"
# In one frame: tables grow in between, and some are refused.
TRANSFERS = 5000
PATIENCE_S = 240


class Made(NamedTuple):
    """A list: the bytes of its segments, and what it comes to, see `golden/make.py`."""

    segments: dict[str, bytes]
    expected: dict[str, Any]
    folder: Path


def made(folder: Path, world: dict[str, str], key: str = "00" * 16) -> Made:
    """The list that a process of its own makes in such a world."""
    options = ["--key", key, "--transfers", str(TRANSFERS)]
    subprocess.run(
        [sys.executable, "-m", "tests.eventstore.golden.make", folder, *options],
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": str(_ROOT)} | world,
        check=True,
        timeout=PATIENCE_S,
    )
    segments = {path.name: path.read_bytes() for path in folder.glob("*.segment")}
    return Made(segments, json.loads((folder / "expected.json").read_text("utf-8")), folder)


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Made:
    world = {"PYTHONHASHSEED": "0", "NUMBA_NUM_THREADS": "1", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    return made(tmp_path_factory.mktemp("ordinary") / "list", world)


def check_same(found: Made, ordinary: Made) -> None:
    assert found.expected == ordinary.expected
    assert found.segments == ordinary.segments


def test_another_seed_of_hash_and_number_of_threads(ordinary: Made, tmp_path: Path) -> None:
    world = {"PYTHONHASHSEED": "1", "NUMBA_NUM_THREADS": "2"}
    check_same(made(tmp_path / "list", world, "5a" * 16), ordinary)


def test_any_seed_of_hash_another_locale_and_zone(ordinary: Made, tmp_path: Path) -> None:
    """Where no encoding is named it is ASCII here."""
    world = {"PYTHONHASHSEED": "random", "TZ": "Asia/Kathmandu", "LC_ALL": "C"}
    world |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    check_same(made(tmp_path / "list", world, "c3" * 16), ordinary)


def test_code_compiled_for_any_machine(ordinary: Made, tmp_path: Path) -> None:
    cache = tmp_path / "compiled"
    world = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(cache)}
    check_same(made(tmp_path / "list", world), ordinary)
    assert any(cache.rglob("*.nbc")), "nothing was compiled anew"


def test_the_golden_list_of_this_version_is_made_again(ordinary: Made) -> None:
    """Frame by frame, as it was once made elsewhere, up to what only one of them has."""
    golden = [path for path in _KEPT.glob("v*") if _version(path) == VERSION]
    if not golden:
        pytest.skip(f"there is no golden list of version {VERSION} of the machine")
    for path in golden:
        # The last one vouches for the one before; here there is another one in between.
        *hashes, _ = (frame.header.hash for frame in make.frames_of(path))
        found = [frame.header.hash for frame in make.frames_of(ordinary.folder)]
        assert found[: len(hashes)] == hashes


def _version(golden: Path) -> int:
    version: int = json.loads((golden / "expected.json").read_text("utf-8"))["machine"]
    return version
