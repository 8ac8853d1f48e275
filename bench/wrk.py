"""wrk, a load generator in C: the one on the PATH, or Debian's, fetched without root."""

import shutil
from pathlib import Path
from typing import NamedTuple

from tandem.local import debian, servers
from tandem.local.errors import LocalError
from tandem.local.progress import Report

# With the machine's own C library.
_BUNDLE = debian.Bundle("wrk", "wrk", (("wrk",),), without=("libc6",))
SCRIPT = Path(__file__).with_name("wrk.lua")


class Wrk(NamedTuple):
    """A program, and what must stand in its environment."""

    program: str
    environment: dict[str, str]


def find(report: Report) -> Wrk:
    """Raises LocalError if there is none and this is no Debian."""
    if found := shutil.which("wrk"):
        return Wrk(found, {})
    if not debian.is_debian():
        raise LocalError("there is no wrk on the PATH, and this is no Debian to fetch it from")
    prefix = debian.fetch(_BUNDLE, servers.download_folder(), report)
    return Wrk(str(prefix / "usr/bin/wrk"), {"LD_LIBRARY_PATH": servers.library_path(prefix)})
