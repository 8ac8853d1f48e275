"""The form of a log line, and that every event is in the documents."""

import ast
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coordinator.http.request_log import level_of
from coordinator.settings import Log
from coordinator.telemetry import logs

PROJECT = Path(__file__).resolve().parents[2]
CODE = [
    path
    for name in ("eventstore", "shard_client", "coordinator", "faults")
    for path in (PROJECT / name).rglob("*.py")
]
EVENT = r'"event": "([a-z_.]+)"'

log = logging.getLogger("coordinator.test")


@pytest.fixture
def configure() -> Iterator[Callable[..., None]]:
    """Sets logging up as a coordinator does; afterwards it is as before."""
    root = logging.getLogger()
    names = [None, "shard_client", "coordinator", "faults", "gunicorn", "kazoo"]
    levels = {name: logging.getLogger(name).level for name in names}
    # Commands, which other tests run in this process, silence it.
    logging.getLogger("kazoo").setLevel(logging.NOTSET)
    handlers, hooks = list(root.handlers), (sys.excepthook, threading.excepthook)
    yield lambda **settings: logs.configure(Log(**settings), "c7")
    root.handlers[:] = handlers
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def written(capfd: pytest.CaptureFixture[str]) -> Callable[[], list[dict]]:
    return lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_line_has_its_event_and_fields(configure, written) -> None:
    configure()
    log.info("group %s: %s", "g1", "done", extra={"event": "group.done", "gtrid": "g1"})
    (line,) = written()
    at = datetime.fromisoformat(line.pop("time"))
    assert at.tzinfo == UTC
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert line.pop("pid") > 0
    assert line == {
        "level": "INFO",
        "event": "group.done",
        "message": "group g1: done",
        "logger": "coordinator.test",
        "coordinator": "c7",
        "gtrid": "g1",
    }


def test_the_time_is_utc_in_microseconds(configure, capfd) -> None:
    configure()
    log.info("now")
    assert re.match(r'\{"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",', capfd.readouterr().err)


def test_a_line_of_a_request_has_its_id(configure, written) -> None:
    configure()
    token = logs.request_id.set("r1")
    log.info("within")
    log.info("of another", extra={"request_id": "r2"})
    logs.request_id.reset(token)
    log.info("after")
    assert [line.get("request_id") for line in written()] == ["r1", "r2", None]


def test_what_nobody_catches_is_one_line(configure, written) -> None:
    configure()

    def fail() -> None:
        raise ValueError("first\nsecond")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    (line,) = written()
    assert line["event"] == "process.crashed"
    assert line["level"] == "CRITICAL"
    assert "in fail" in line["stack"]
    assert "second" in line["stack"]


def test_others_are_heard_from_warning_on(configure, written) -> None:
    configure(level="debug")
    log.debug("own")
    logging.getLogger("gunicorn.error").debug("gunicorn's")
    logging.getLogger("kazoo.client").info("Sending request: Auth(auth='user:password')")
    logging.getLogger("kazoo.client").warning("Connection dropped")
    assert [line["event"] for line in written()] == ["coordinator", "gunicorn", "kazoo"]


def test_level(configure, written) -> None:
    configure(level="warning")
    log.info("no")
    log.warning("yes")
    assert [line["message"] for line in written()] == ["yes"]


def test_text(configure, capfd) -> None:
    configure(format="text")
    extra = {"event": "shard.lost", "shard": "s1", "code": 2013}
    log.warning("shard %s is not used", "s1", extra=extra)
    text = capfd.readouterr().err
    assert re.fullmatch(
        r"\S+Z \d+ WARNING shard s1 is not used  \[shard\.lost shard=s1 code=2013\]\n", text
    )


def test_what_clients_send_cannot_look_like_a_line_of_its_own(configure, capfd) -> None:
    configure(format="text")
    path = "/x\n2026-11-25 CRITICAL all is lost\x1b[31m é"
    log.info("GET %s", path, extra={"event": "http.request", "path": path})
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "\x1b" not in told
    assert told.count("/x\\n2026-11-25 CRITICAL all is lost\\x1b[31m é") == 2


def test_a_pipe_gets_json_and_a_terminal_text(configure, capfd, monkeypatch) -> None:
    configure()
    log.info("x")
    assert capfd.readouterr().err.startswith("{")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure()
    log.info("x")
    assert not capfd.readouterr().err.startswith("{")


def test_ids_of_a_field_are_few() -> None:
    assert logs.few(range(1000)) == [str(n) for n in range(20)]
    assert logs.few([]) == []


@pytest.mark.parametrize(
    ("route", "status", "noted", "all_", "errors"),
    [
        ("/v1/transfers", 201, {}, logging.INFO, logging.DEBUG),
        ("/v1/transfers", 202, {}, logging.INFO, logging.INFO),
        ("/v1/transfers", 422, {}, logging.INFO, logging.INFO),
        ("/v1/transfers", 503, {}, logging.WARNING, logging.WARNING),
        ("/v1/transfers/batch", 200, {"committed": 3, "rejected": 1}, logging.INFO, logging.DEBUG),
        ("/v1/transfers/batch", 200, {"committed": 3, "failed": 1}, logging.INFO, logging.INFO),
        ("/v1/transfers/batch", 200, {"pending": 1}, logging.INFO, logging.INFO),
        ("/v1/accounts/<account>", 201, {"scope": "admin"}, logging.INFO, logging.INFO),
        ("/v1/transfers", 201, {"scope": "transfer"}, logging.INFO, logging.DEBUG),
        ("/readyz", 200, {}, logging.DEBUG, logging.DEBUG),
        ("/readyz", 503, {}, logging.WARNING, logging.WARNING),
        (None, 404, {}, logging.INFO, logging.INFO),
    ],
)
def test_which_requests_are_logged(route, status, noted, all_, errors) -> None:
    assert level_of(route, status, noted, is_all=True) == all_
    assert level_of(route, status, noted, is_all=False) == errors


def test_every_event_is_documented_and_none_that_there_is_not() -> None:
    text = (PROJECT / "docs/logs.md").read_text()
    rows = re.findall(r"^\| ((?:`[a-z_]+\.[a-z_]+`(?:, )?)+) \|", text, re.MULTILINE)
    told = re.findall(r"`([^`]+)`", " ".join(rows))
    used = {name for path in CODE for name in re.findall(EVENT, path.read_text())}
    assert sorted(told) == sorted(used)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_line_has_fields(path: Path) -> None:
    """One without `extra` would stand under the name of its package."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and hasattr(logging.Logger, node.func.attr)
        and node.func.attr != "isEnabledFor"
    ]
    for call in calls:
        assert "extra" in {keyword.arg for keyword in call.keywords}, ast.unparse(call)
