"""How a process of the event store logs: one line for each event on standard error, JSON in service
and text at a terminal.

Code logs with `logging`, and puts the event's name and fields into `extra`:

    log.info("it serves at %s", address, extra={"event": "node.serving", "address": address})
"""

import json
import logging
import os
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType

# What every record has, and what is told under a name of its own.
_PLAIN = {*logging.makeLogRecord({}).__dict__, "event", "message", "taskName"}


def configure(level: int = logging.INFO) -> None:
    """Send everything that this process logs to standard error."""
    handler = _OneWrite()
    handler.setFormatter(_Text() if sys.stderr.isatty() else _Json())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    # Of other libraries only what may be trouble is of interest.
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("eventstore").setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _log_crash
    threading.excepthook = lambda args: _log_crash(
        args.exc_type, args.exc_value, args.exc_traceback
    )


class _OneWrite(logging.Handler):
    """Writes a line at once, so that those of several threads do not mix."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(2, f"{self.format(record)}\n".encode(errors="replace"))
        except Exception:
            self.handleError(record)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _PLAIN}


def _event(record: logging.LogRecord) -> str:
    """Of a library, its name."""
    return str(getattr(record, "event", record.name.partition(".")[0]))


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "event": _event(record),
            "message": record.getMessage(),
            "pid": record.process,
        }
        line |= _fields(record)
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Text(logging.Formatter):
    """TIME LEVEL MESSAGE [EVENT FIELD=VALUE ...], and the stack below, if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        return f"{_time(record)} {record.levelname} {record.message}  [{_event(record)}{fields}]"


def _log_crash(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """What nobody has caught, as one line."""
    logging.getLogger(__name__).critical(
        "uncaught %s: %s",
        kind.__name__,
        error,
        exc_info=(kind, error or kind(), trace),
        extra={"event": "process.crashed"},
    )
