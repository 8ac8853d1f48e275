"""A read side as a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore.reading.errors import HoldsList
from eventstore.reading.side import drop
from eventstore.segments.errors import FolderInUse
from tests.eventstore.groups import PATIENCE_S
from tests.eventstore.serving import CLUSTER, HOST, SECRET, process


def command(tmp_path: Path, *more: str) -> list[str]:
    """The command line of a read side, which keeps its files in `kept`."""
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    where = [
        sys.executable,
        "-m",
        "eventstore",
        "reads",
        str(tmp_path / "g1"),
        "--cluster",
        CLUSTER,
    ]
    where += ["--listen", f"{HOST}:0", "--node", f"{HOST}:1", "--secret-file", str(secret)]
    return [*where, "--keep", str(tmp_path / "kept"), *more]


def test_it_waits_for_the_list_to_begin(tmp_path: Path) -> None:
    """Node and read side are started together, also for the first time."""
    folder = tmp_path / "g1"
    folder.mkdir()
    with subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE) as reads:
        assert reads.stderr
        events = (json.loads(line)["event"] for line in reads.stderr)
        try:
            assert next(events) == "reads.no_list"
            with process(folder, "--begin") as node:
                node.wait_for("node.serving")
            assert "reads.serving" in events
        finally:
            reads.terminate()


def test_what_is_damaged_is_dropped_and_made_anew_by_one_option(tmp_path: Path) -> None:
    folder, kept = tmp_path / "g1", tmp_path / "kept"
    folder.mkdir()
    kept.mkdir()
    with process(folder, "--begin") as node:
        node.wait_for("node.serving")
    manifest, other = kept / "manifest", kept / "notes.txt"
    manifest.write_text("what nobody has written\n")
    other.write_text("of somebody else")
    refused = subprocess.run(command(tmp_path), stderr=subprocess.PIPE, timeout=PATIENCE_S)
    told = json.loads(refused.stderr.splitlines()[-1])
    assert (refused.returncode, told["event"]) == (1, "reads.not_started")
    assert "--rebuild" in told["message"]
    with subprocess.Popen(command(tmp_path, "--rebuild"), stderr=subprocess.PIPE) as reads:
        assert reads.stderr
        events = (json.loads(line)["event"] for line in reads.stderr)
        try:
            assert next(events) == "reads.dropped"
            assert "reads.serving" in events
        finally:
            reads.terminate()
    assert not manifest.exists()
    assert other.read_text() == "of somebody else"


def test_a_node_s_folder_is_not_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "g1"
    folder.mkdir()
    with process(folder, "--begin") as node:
        node.wait_for("node.serving")
        with pytest.raises(FolderInUse):
            drop(folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(HoldsList, match="nothing was removed"):
        drop(folder)
    assert sorted(path.name for path in folder.iterdir()) == before
