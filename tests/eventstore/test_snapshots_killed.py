"""Snapshots whose making is killed at every operation on files: see killed_snapshots.py."""

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path

from eventstore.snapshots.names import snapshot_name


def test_whenever_it_is_killed_the_one_before_or_the_new_one_is_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.eventstore.killed_snapshots", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert [life["killed"] for life in lives] == [True] * (len(lives) - 1) + [False]
    assert len(lives) > 20
    # The one before, up to the moment at which the new one gets its name.
    assert [seen for seen, _ in groupby(life["found"] for life in lives)] == [2, 3]
    for life in lives:
        newest, older = sorted(life["names"], reverse=True)
        assert newest == snapshot_name(4)
        assert older in (snapshot_name(2), snapshot_name(3))
    # What is damaged is told: nothing was.
    assert done.stderr == ""
