"""The head of an answer goes together with its body: one call of the system and one packet for
each answer, not two.
"""

from typing import Any

_HAS_BODY = b"\r\nContent-Length: "


class OneWrite:
    """A client's socket, for one answer; `flush` it behind that. Whatever is not told here is the
    socket's.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._head = b""
        self._is_begun = False

    def sendall(self, data: bytes) -> None:
        """Send, or keep the head of an answer until its body comes. Of one without a length the
        body may come late, or never: its head goes at once.
        """
        if not self._is_begun and _HAS_BODY in data:
            self._is_begun, self._head = True, data
            return
        self._is_begun = True
        self._client.sendall(self._head + data)
        self._head = b""

    def flush(self) -> None:
        """Send what was kept: there was no body."""
        if self._head:
            head, self._head = self._head, b""
            self._client.sendall(head)

    def __getattr__(self, name: str) -> Any:
        # Whatever it is for, as to send a file, nothing may come before the head.
        self.flush()
        return getattr(self._client, name)
