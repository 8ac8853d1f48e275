"""Shards that are asked at once: whose answer is there is heard, however late another one is."""

import socket
import threading
from types import SimpleNamespace
from typing import Any

from coordinator.engine.participants import GroupBranches, Participants


class Silent:
    """Whatever it is told, nothing follows."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Reply:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def get(self) -> bytes:
        return self._sock.recv(1)


def test_two_that_are_slow_together_are_both_heard() -> None:
    """Half a second of silence is not the end of who answers while another one is read."""
    parties: Participants[Any] = GroupBranches(
        Silent(), SimpleNamespace(home="s1"), Silent(), Silent()
    )
    theirs = []
    for name in ("s1", "s2"):
        ours, other = socket.socketpair()
        theirs.append(other)
        parties.branches[name] = SimpleNamespace(
            shard=name, sock=ours, fileno=ours.fileno, abandon=ours.close
        )

    def answer() -> None:
        for other in reversed(theirs):
            other.sendall(b"x")

    late = threading.Timer(0.7, answer)
    late.start()
    answers = parties.ask(["s1", "s2"], lambda branch: Reply(branch.sock), "lock")
    late.join()
    assert answers == {"s1": b"x", "s2": b"x"}
    for other in theirs:
        other.close()
    for branch in parties.branches.values():
        branch.sock.close()
