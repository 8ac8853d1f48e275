"""A read side as a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from tests.eventstore.serving import CLUSTER, HOST, SECRET, process


def test_it_waits_for_the_list_to_begin(tmp_path: Path) -> None:
    """Node and read side are started together, also for the first time."""
    folder, secret = tmp_path / "g1", tmp_path / "secret"
    folder.mkdir()
    secret.write_bytes(SECRET)
    command = [sys.executable, "-m", "eventstore", "reads", str(folder), "--cluster", CLUSTER]
    command += ["--listen", f"{HOST}:0", "--node", f"{HOST}:1", "--secret-file", str(secret)]
    command += ["--keep", str(tmp_path / "kept")]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as reads:
        assert reads.stderr
        events = (json.loads(line)["event"] for line in reads.stderr)
        try:
            assert next(events) == "reads.no_list"
            with process(folder, "--begin") as node:
                node.wait_for("node.serving")
            assert "reads.serving" in events
        finally:
            reads.terminate()
