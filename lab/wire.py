"""One HTTP request at a time, with as little of this process's own work as can be."""

import http.client
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tandem.chaos.history import LOST, NOT_CONNECTED, TOO_LATE, Reply, label_of
from tandem.chaos.workload import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S


class Line:
    """A client's own connection to one coordinator, kept open. Not for threads to share."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 80
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: Any, headers: Mapping[str, str]) -> Reply:
        """Send it once; never raises for what becomes of it."""
        try:
            connection = self._connected()
        except OSError:
            return Reply(0, None, NOT_CONNECTED, was_sent=False)
        typed = {"Content-Type": "application/json", **headers}
        try:
            connection.request("POST", path, msgspec.json.encode(body), typed)
            answer = connection.getresponse()
            content = answer.read()
        except TimeoutError:
            self.close()
            return Reply(0, None, f"{TOO_LATE} within {ANSWER_TIMEOUT_S:.0f} s")
        except (OSError, http.client.HTTPException):
            self.close()
            return Reply(0, None, LOST)
        if answer.will_close:
            self.close()
        try:
            said = msgspec.json.decode(content)
        except msgspec.DecodeError:
            said = None
        return Reply(answer.status, said, label_of(answer.status, said))

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            made = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
            made.connect()
            made.sock.settimeout(ANSWER_TIMEOUT_S)
            self._connection = made
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
