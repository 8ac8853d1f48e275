"""How a connection begins, at both of its ends: see proofs.py.

`deadline` is monotonic, in seconds; after it TimeoutError is raised. Both raise WireError and
OSError, too.
"""

import secrets

from eventstore.wire.errors import ClientError, Malformed, Rejected
from eventstore.wire.failures import Failed, FailureKind, error_of
from eventstore.wire.messages import PROOF_BYTES_MAX, Buffer, Kind, pack
from eventstore.wire.proofs import (
    CLIENT,
    NONCE_BYTES,
    SERVER,
    WIRE_VERSION,
    Challenge,
    Hello,
    Proof,
    Welcome,
    is_signed,
    sign,
)
from eventstore.wire.stream import Stream
from eventstore.wire.values import decode, encode
from ledger.errors import Bug


def greet(stream: Stream, secret: bytes, cluster: str, deadline: float) -> Hello:
    """The client's side: who the server is, which has proved that it knows the secret. Raises
    Rejected, naming what is wrong.
    """
    challenge = decode(_expect(stream, Kind.CHALLENGE, deadline), Challenge)
    if challenge.version != WIRE_VERSION:
        raise Rejected(
            f"it speaks version {challenge.version} of the wire, and this is version "
            f"{WIRE_VERSION}: run the same version of Tandem on both sides"
        )
    nonces = challenge.nonce, secrets.token_bytes(NONCE_BYTES)
    proof = Proof(nonces[1], cluster, sign(secret, CLIENT, *nonces, cluster))
    _send(stream, pack(0, Kind.PROOF, encode(proof)))
    welcome = decode(_expect(stream, Kind.HELLO, deadline), Welcome)
    if not is_signed(welcome.sign, sign(secret, SERVER, *nonces, cluster)):
        raise Rejected(f"it does not know the secret of cluster {cluster!r}")
    return welcome.hello


def welcome(stream: Stream, secret: bytes, hello: Hello, deadline: float) -> None:
    """The server's side. Raises Rejected when the client was told that it is."""
    mine = secrets.token_bytes(NONCE_BYTES)
    _send(stream, pack(0, Kind.CHALLENGE, encode(Challenge(WIRE_VERSION, mine))))
    proof = decode(_expect(stream, Kind.PROOF, deadline), Proof)
    nonces = mine, proof.nonce
    why = ""
    if len(proof.nonce) != NONCE_BYTES:
        why = f"the nonce has {len(proof.nonce)} bytes, and should have {NONCE_BYTES}"
    elif not is_signed(proof.sign, sign(secret, CLIENT, *nonces, proof.cluster)):
        why = "the secret is not the one that is known here: give both sides the same file"
    elif proof.cluster != hello.cluster:
        why = f"this is cluster {hello.cluster!r}, and {proof.cluster!r} was asked for"
    if why:
        _send(stream, pack(0, Kind.FAILED, encode(Failed(FailureKind.REJECTED, why))))
        raise Rejected(why)
    signed = sign(secret, SERVER, *nonces, hello.cluster)
    _send(stream, pack(0, Kind.HELLO, encode(Welcome(signed, hello))))


def _expect(stream: Stream, kind: Kind, deadline: float) -> Buffer:
    message = stream.receive(PROOF_BYTES_MAX, deadline=deadline)
    if message is None:
        raise ConnectionError(f"the connection was closed before {kind.name} came")
    if message.kind == Kind.FAILED:
        raise _refused(decode(message.body, Failed))
    if message.kind != kind:
        raise Malformed("a message", message.kind.name, kind.name)
    return message.body


def _refused(failed: Failed) -> ClientError:
    error = error_of(failed)
    return Rejected(failed.text) if isinstance(error, Bug) else error


def _send(stream: Stream, message: bytes) -> None:
    if stream.send(message) < len(message):
        raise ConnectionError("the connection broke")
