"""A test run that is ended from outside leaves no server behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.local.servers import PROJECT
from tests import reaper
from tests.cluster import wait_until

TEST = """
import os, subprocess, sys, time
from pathlib import Path

def test_that_takes_long():
    child = [sys.executable, "-c", "import time; time.sleep(600)"]
    for is_detached in (False, True):
        subprocess.Popen(child, start_new_session=is_detached)
    made = Path(__file__).with_name("made")
    made.write_text(os.environ["TEST_RUN_MARK"])
    made.rename(made.with_name("mark"))
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("how", "workers"),
    [(signal.SIGTERM, ()), (signal.SIGTERM, ("-n", "1")), (signal.SIGKILL, ())],
)
def test_nothing_is_left(how: signal.Signals, workers: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "test_long.py").write_text(TEST)
    log = tmp_path / "log"
    options = ("-p", "tests.conftest", "-c", str(PROJECT / "setup.cfg"), *workers)
    with log.open("wb") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, str(tmp_path)],
            cwd=PROJECT,
            stdout=output,
            stderr=output,
        )

    try:
        wait_until((tmp_path / "mark").exists, 60, lambda: log.read_text())
        mark = (tmp_path / "mark").read_text()
        assert len(reaper.marked(mark)) >= 2
        run.send_signal(how)
        run.wait(30)
        wait_until(lambda: not reaper.marked(mark), 30, lambda: f"left: {reaper.marked(mark)}")
    finally:
        run.kill()
        run.wait()
