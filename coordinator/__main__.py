"""Starts a coordinator: `python -m coordinator`.

Its threads are greenlets (docs/decisions/0014-greenlets.md), so what Python's own modules take for
threads, locks and sockets is exchanged before anything else is imported.
"""

import sys

from gevent import monkey

monkey.patch_all()

from coordinator.server import main  # noqa: E402

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
