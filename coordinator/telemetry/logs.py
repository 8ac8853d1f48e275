"""How a coordinator logs: one line for each event, JSON in service and text at a terminal.

Code logs with `logging`, and puts the event's name and fields into `extra`:

    log.warning("shard %s is not used: %s", id, why, extra={"event": "shard.lost", "shard": id})

docs/logs.md has every event with its fields. Fields are ids, counts and durations, never what
belongs to a user (balances, metadata) and never a secret.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from gunicorn import glogging
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.msgspec import MsgspecFormatter

from coordinator.settings import Log

# The request that this thread is at work on, if any.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# Those whose level is `log.level`. Of other libraries only what may be trouble is of interest; and
# at debug kazoo would write what it authenticates itself with.
_OWN = ("shard_client", "coordinator", "faults", "gunicorn")
_IDS_MAX = 20

_crashes = logging.getLogger(__name__)


def configure(settings: Log, coordinator: str) -> None:
    """Send everything that this process logs to standard error, as the settings say."""
    is_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    handler = _OneWrite()
    handler.addFilter(_complete)
    handler.setFormatter(_Text() if is_text else _json(coordinator))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root.setLevel(max(level, logging.WARNING))
    for name in _OWN:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    # Looked up for each line, and in none.
    logging.logThreads = logging.logMultiprocessing = False
    sys.excepthook = _log_crash
    threading.excepthook = lambda args: _log_crash(
        args.exc_type, args.exc_value, args.exc_traceback
    )


def few(ids: Iterable[object]) -> list[str]:
    """Ids for a field, the first of them where they are many: a line stays of bounded length."""
    return [str(id_) for id_, _ in zip(ids, range(_IDS_MAX), strict=False)]


class GunicornLogger(glogging.Logger):  # type: ignore[misc]
    """Gunicorn's own lines, through the handler of all others."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.propagate = True

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if msg.startswith("Invalid request from"):
            # It quotes what it could not parse, perhaps a header with a token.
            msg = re.sub("['\"].*", "(not shown)", msg, flags=re.DOTALL)
        super().warning(msg, *args, **kwargs)


class _OneWrite(logging.Handler):
    """Writes a line at once, so that those of several processes and threads do not mix, unless one
    is longer than a pipe takes at once (4 KiB).
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(2, f"{self.format(record)}\n".encode(errors="replace"))
        except Exception:
            self.handleError(record)


def _complete(record: logging.LogRecord) -> bool:
    """Give a record what every line has: an event (of a library, its name) and the request."""
    if not hasattr(record, "event"):
        record.event = record.name.partition(".")[0]
    if (current := request_id.get()) and not hasattr(record, "request_id"):
        record.request_id = current
    return True


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


class _Json(MsgspecFormatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _time(record)


def _json(coordinator: str) -> logging.Formatter:
    return _Json(
        ["asctime", "levelname", "event", "message", "process", "name"],
        rename_fields={
            "asctime": "time",
            "levelname": "level",
            "process": "pid",
            "name": "logger",
            "exc_info": "stack",
        },
        static_fields={"coordinator": coordinator},
    )


_PLAIN = {*RESERVED_ATTRS, "event", "taskName"}


class _Text(logging.Formatter):
    """TIME LEVEL MESSAGE [EVENT FIELD=VALUE ...], and the stack below, if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = (f" {k}={v}" for k, v in record.__dict__.items() if k not in _PLAIN)
        text = (
            f"{_time(record)} {record.process} {record.levelname} {record.message}  "
            f"[{record.event}{''.join(fields)}]"  # type: ignore[attr-defined]
        )
        # What clients send must not look like a line of its own, nor command the terminal.
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _log_crash(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """What nobody has caught, as one line."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    _crashes.critical(
        "uncaught %s: %s",
        kind.__name__,
        error,
        exc_info=(kind, error or kind(), trace),
        extra={"event": "process.crashed"},
    )
