"""Reading the log of a coordinator."""

import json
from pathlib import Path


def lines(log: Path) -> list[dict]:
    """Every line of a log. Fails on one that is no JSON object of the common form."""
    found = [json.loads(line) for line in log.read_text().splitlines()]
    for line in found:
        assert {"time", "level", "event", "message", "pid", "coordinator"} <= line.keys(), line
    return found


def events(log: Path, name: str) -> list[dict]:
    """The lines of one event, in order, of a log that may be in the middle of a line."""
    found = []
    for text in log.read_text().splitlines():
        if f'"event":"{name}"' in text and text.endswith("}"):
            found.append(json.loads(text))
    return found
