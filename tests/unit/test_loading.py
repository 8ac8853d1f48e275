"""What a coordinator loads when it starts: each of its processes pays for it."""

import subprocess
import sys


def test_a_coordinator_does_not_load_what_makes_tables() -> None:
    code = "import sys, coordinator.__main__; sys.exit('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
