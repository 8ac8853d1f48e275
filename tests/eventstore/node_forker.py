"""Starts processes of the event store by forking one that has imported numba already.

    python -m tests.eventstore.node_forker

reads requests, a JSON object on each line, until its input ends, and answers each with a line:
`{"arguments": [...], "errors": FIFO}` starts `python -m eventstore ARGUMENTS` and gives its process
id; `{"wait": PID}` gives its exit code, as subprocess has it, when it has ended.
"""

import gc
import json
import os
import sys

import eventstore.server.process  # noqa: F401
from eventstore.__main__ import main


def serve() -> None:
    gc.collect()
    gc.freeze()
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            errors = os.open(request["errors"], os.O_WRONLY)
            if (answer := os.fork()) == 0:
                os.setsid()
                os.dup2(errors, 2)
                os.dup2(os.open(os.devnull, os.O_RDWR), 0)
                os.dup2(0, 1)
                os.closerange(3, errors + 2)
                main(request["arguments"], prog_name="python -m eventstore")
            os.close(errors)
        os.write(1, b"%s\n" % json.dumps(answer).encode())


if __name__ == "__main__":
    serve()
