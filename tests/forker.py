"""Starts coordinators by forking a process that has imported all of their modules already.

    python -m tests.forker

reads requests, a JSON object on each line, until its input ends, and answers each with a line.
Importing takes a coordinator most of a second of processor time, and a run of the tests starts
hundreds. What is forked is what `python -m coordinator` is from its `main` on.
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import coordinator.server  # noqa: E402
import faults.__main__  # noqa: E402

_MAINS = {"coordinator": coordinator.server.main, "faults": faults.__main__.main}
# Those of the system: gevent's would begin a loop here, which all that is forked would inherit.
_fork = monkey.get_original("os", "fork")
_waitpid = monkey.get_original("os", "waitpid")


def serve() -> int:
    """Answer requests: to start something, with its process id; for how it has ended, with its exit
    code as subprocess has it, or null while it lives.
    """
    gc.collect()
    gc.freeze()
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        if "ended" in request:
            pid, status = _waitpid(request["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := _fork()) == 0:
            _become(request)
            return _MAINS[request["module"]]()
        os.write(1, b"%s\n" % json.dumps(answer).encode())
    return 0


def _become(request: dict[str, Any]) -> None:
    """As subprocess.Popen would start it: in a session of its own, writing to its log."""
    os.setsid()
    os.chdir(request["folder"])
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    os.closerange(3, max(log, nothing) + 1)
    os.environ.clear()
    os.environ.update(request["environment"])


if __name__ == "__main__":
    sys.exit(serve())
