"""Files with secrets that others on the machine can read: whoever starts a coordinator is told."""

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from coordinator.settings import DEFAULT_FILE, Settings


def readable_by_others(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[str]:
    """What to say of each. The file of tokens is not among them: it is refused then."""
    return [
        f"{what} {path} can be read by everybody on this machine (mode {mode:04o}): chmod 600, or "
        "640 for a group that needs it"
        for what, path in _named(settings, environ)
        if (mode := _mode(path)) & 0o004
    ]


def _named(settings: Settings, environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    keys = {
        "access.tls_key": settings.access.tls_key,
        "mysql.tls_key": settings.mysql.tls_key,
        "zookeeper.tls_key": settings.zookeeper.tls_key,
    }
    yield from ((f"the key of {name}", Path(file)) for name, file in keys.items() if file)
    file = Path(environ.get("TANDEM_CONFIG") or DEFAULT_FILE)
    if _has_password(file):
        yield "the configuration, with passwords,", file


def _has_password(file: Path) -> bool:
    try:
        tables = tomllib.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return any(
        "password" in key and value
        for table in tables.values()
        if isinstance(table, dict)
        for key, value in table.items()
    )


def _mode(path: Path) -> int:
    """0 if it is not there: that is somebody else's to say."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0
