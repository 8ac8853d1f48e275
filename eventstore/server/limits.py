"""How much of everything (rule E16)."""

from typing import NamedTuple


class Limits(NamedTuple):
    """Beyond `connections` a further one is refused, beyond `requests` under way on one of them the
    next is answered "busy". A client that leaves more than `queued_bytes` unread is cut off.
    """

    connections: int = 256
    requests: int = 4096
    queued_bytes: int = 64 * 2**20
    # Within which a connection proves itself.
    proof_s: float = 5.0
    # For how long what is sent last may take to arrive: to all clients, at the server's end.
    drain_s: float = 5.0
    # The same, to one that is refused; so many bytes of what it sends are read meanwhile.
    goodbye_s: float = 1.0
    goodbye_bytes: int = 32 * 2**20
