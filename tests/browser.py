"""A headless Chromium for tests: the one on the PATH, or Debian's, fetched without root."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, sync_playwright

from tandem.local import debian, servers
from tandem.local.errors import LocalError

PROGRAMS = ("chromium", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
# It runs itself anew through /proc/self/exe, which a loader of another release does not survive:
# so it comes from the machine's own release, and with the machine's own C library.
BUNDLE = debian.Bundle(
    "chromium", "Chromium", (("chromium-headless-shell", "chromium"),), without=("libc6",)
)
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Chromium(NamedTuple):
    """A program, and what must stand in its environment."""

    program: Path
    environment: dict[str, str]


def find() -> Chromium:
    """Chromium on the PATH, or fetched. Raises LocalError if this is no Debian."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return Chromium(Path(found), {})
    if not debian.is_debian():
        raise LocalError("there is no Chromium on the PATH, and this is no Debian to fetch it from")
    return _unpacked(debian.fetch(BUNDLE, servers.download_folder(), print))


def _unpacked(prefix: Path) -> Chromium:
    programs = (
        prefix / "usr/lib/chromium" / name for name in ("chromium-headless-shell", "chromium")
    )
    program = next((path for path in programs if path.exists()), None)
    if program is None:
        raise LocalError(f"there is no Chromium in {prefix}; remove it and try again")
    libraries = [*prefix.glob("usr/lib/*-linux-gnu*"), *prefix.glob("lib/*-linux-gnu*")]
    # Some have their own in a folder that they name by its full path.
    libraries += [path for top in libraries for path in (top / "nss", top / "pulseaudio")]
    fonts = prefix / "fonts.conf"
    folders = (prefix / "usr/share/fonts", "/usr/share/fonts")
    fonts.write_text(
        "<fontconfig>"
        + "".join(f"<dir>{folder}</dir>" for folder in folders)
        + f"<cachedir>{prefix}/fonts.cache</cachedir></fontconfig>"
    )
    path = ":".join(str(folder) for folder in libraries if folder.is_dir())
    return Chromium(program, {"LD_LIBRARY_PATH": path, "FONTCONFIG_FILE": str(fonts)})


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with no past, for a block."""
    found = find()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=found.program,
            args=list(OPTIONS),
            env={**os.environ, **found.environment},
        )
        try:
            yield running
        finally:
            running.close()
