"""How both ends of a connection prove to each other that they know the cluster's secret.

    server -> client   CHALLENGE   version of the wire, the server's nonce
    client -> server   PROOF       the client's nonce, the cluster's name, the client's sign
    server -> client   HELLO       the server's sign, and who it is

A sign is HMAC-SHA256, under the secret, of the role, both nonces and the cluster's name: what one
end has said proves nothing when the other end says it, or when it is said again. What follows is
neither encrypted nor signed: it is for networks where nobody else can write into a connection.
"""

import hmac

import msgspec

WIRE_VERSION = 1
NONCE_BYTES = 32
# Of a cluster's name: what nobody has proved yet is short, see PROOF_BYTES_MAX.
CLUSTER_BYTES_MAX = 255

SERVER, CLIENT = b"server", b"client"
_DOMAIN = b"tandem.eventstore.wire.1"


class Challenge(msgspec.Struct, frozen=True):
    """The body of CHALLENGE."""

    version: int
    nonce: bytes


class Proof(msgspec.Struct, frozen=True):
    """The body of PROOF."""

    nonce: bytes
    cluster: str
    sign: bytes


class Hello(msgspec.Struct, frozen=True):
    """Who a server is: the cluster's name, the group's uuid, its branch, and the epoch of this
    start; `reads` is where its read side listens (host and port), None if it has none.
    """

    cluster: str
    group: str
    branch: int
    epoch: int
    reads: tuple[str, int] | None = None


class Welcome(msgspec.Struct, frozen=True):
    """The body of HELLO."""

    sign: bytes
    hello: Hello


def sign(secret: bytes, role: bytes, server: bytes, client: bytes, cluster: str) -> bytes:
    """What who has this role proves itself with; `server` and `client` are their nonces."""
    parts = (_DOMAIN, role, server, client, cluster.encode())
    said = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    return hmac.digest(secret, said, "sha256")


def is_signed(found: bytes, expected: bytes) -> bool:
    """Whether a sign is right; how long that takes says nothing of it."""
    return hmac.compare_digest(found, expected)
